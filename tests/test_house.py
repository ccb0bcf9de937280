"""The house rules that a machine can hold."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Room -> rooms that it may import from.
MAY_IMPORT = {
    "lbrcore": set(),
    "errors": set(),
    "printable": set(),
    "arch": {"lbrcore"},
    "cpu": {"lbrcore", "arch"},
    "host": {"lbrcore", "arch", "cpu"},
    "kvm": {"lbrcore", "arch", "cpu", "host"},
    "arbitration": {"lbrcore", "arch", "cpu", "host", "kvm"},
    "verify": {"lbrcore", "arch", "cpu", "host", "kvm", "arbitration"},
    "x86": {"lbrcore"},
    "files": set(),
    "perf": {"lbrcore", "arch", "files"},
    "trace": {"lbrcore", "x86", "files", "perf"},
    "sample": {"lbrcore", "arch", "cpu", "perf", "trace"},
    "profile": {"lbrcore", "arch", "cpu", "x86", "files", "perf", "trace", "sample"},
    "record": {"lbrcore", "arch", "cpu", "x86", "files", "perf", "trace", "sample", "profile",
               "embed"},
    "embed": {"lbrcore", "arch", "cpu", "x86", "host", "kvm", "arbitration", "files", "trace",
              "sample", "profile"},
}


def tracked(*patterns):
    out = subprocess.run(["git", "-C", str(ROOT), "ls-files", *patterns], check=True,
                         capture_output=True, text=True).stdout
    return [ROOT / name for name in out.split("\n") if name and (ROOT / name).exists()]


def room_of(path):
    parts = path.relative_to(ROOT).parts
    if parts[0] == "lbrcore":
        return "lbrcore"
    return parts[1].removesuffix(".py") if len(parts) == 2 else parts[1]


def imported(path):
    """Modules that a Python or Cython file imports, by text: Cython is no Python."""
    names = set()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
        return names
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) > 1 and words[0] in ("from", "import", "cimport"):
            names.add(words[1])
    return names


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room):
    allowed = MAY_IMPORT[room] | {room, "errors", "printable"}
    wrong = []
    for path in tracked("lbrcore/*.p*", "pylbr/*.p*"):
        if path.suffix not in (".py", ".pyx", ".pxd") or room_of(path) != room:
            continue
        for name in imported(path):
            parts = name.split(".")
            target = parts[1] if parts[0] == "pylbr" and len(parts) > 1 else parts[0]
            if parts[0] in ("pylbr", "lbrcore") and target not in allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_nothing_uses_the_command_line():
    wrong = [str(path.relative_to(ROOT)) for path in tracked("lbrcore/*.py", "pylbr/*.py")
             if room_of(path) not in ("cli", "__main__")
             and any(name.startswith("pylbr.cli") for name in imported(path))]
    assert not wrong


def test_every_pyx_has_its_stub():
    assert not [str(p) for p in tracked("lbrcore/*.pyx", "pylbr/**/*.pyx")
                if not p.with_suffix(".pyi").exists()]


def test_the_recipes_name_what_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:lbrcore|pylbr|tests|docs|bench)/[\w./]*)`", text))
    assert len(named) > 8
    assert not [name for name in named if not (ROOT / name).exists()]
