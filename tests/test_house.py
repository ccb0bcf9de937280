"""The house rules that a machine can hold."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from pylbr.arch import bits

ROOT = Path(__file__).resolve().parent.parent

#: Room -> rooms that it may import from.
MAY_IMPORT = {
    "lbrcore": set(),
    "errors": set(),
    "printable": set(),
    "tables": set(),
    "arch": {"lbrcore"},
    "cpu": {"lbrcore", "arch"},
    "host": {"lbrcore", "arch", "cpu"},
    "kvm": {"lbrcore", "arch", "cpu", "host"},
    "arbitration": {"lbrcore", "arch", "cpu", "host", "kvm"},
    "verify": {"lbrcore", "arch", "cpu", "host", "kvm", "arbitration", "tables"},
    "x86": {"lbrcore"},
    "files": set(),
    "perf": {"lbrcore", "arch", "files"},
    "trace": {"lbrcore", "x86", "files", "perf"},
    "sample": {"lbrcore", "arch", "cpu", "perf", "trace"},
    "profile": {"lbrcore", "arch", "cpu", "x86", "files", "perf", "trace", "sample"},
    "record": {"lbrcore", "arch", "cpu", "x86", "files", "perf", "trace", "sample", "profile",
               "embed", "tables"},
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


# Circles, twins, facts

SOURCES = [path for path in tracked("lbrcore/*.p*", "pylbr/*.p*")
           if path.suffix in (".py", ".pyx", ".pxd")]


def statements(path):
    """(module, names, cimported) of every import in a file, type checkers' included."""
    text = path.read_text()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from ((alias.name, [], False) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert not node.level, f"{path}: relative import"
                yield node.module, [alias.name for alias in node.names], False
        return
    pattern = r"^[ \t]*from\s+([\w.]+)\s+(c?import)\s+(\([^)]*\)|[^\n]*)"
    for module, word, names in re.findall(pattern, text, re.M):
        yield module, re.findall(r"(\w+)(?:\s+as\s+\w+)?", names), word == "cimport"
    for word, module in re.findall(r"^[ \t]*(c?import)\s+([\w.]+)", text, re.M):
        yield module, [], word == "cimport"


def file_of(module, cimported):
    """The tracked file that an import of `module` reads; None for what is not ours."""
    place = ROOT.joinpath(*module.split("."))
    for suffix in (".pxd",) if cimported else (".py", ".pyx"):
        for path in (place.with_suffix(suffix), place / f"__init__{suffix}"):
            if path in KNOWN:
                return path
    return None


KNOWN = set(SOURCES)


def files_imported(path):
    """Files of ours that a file imports; a .pyx has its own .pxd, too."""
    found = {path.with_suffix(".pxd")} & KNOWN if path.suffix == ".pyx" else set()
    for module, names, cimported in statements(path):
        if module.split(".")[0] not in ("pylbr", "lbrcore"):
            continue
        of_names = {file_of(f"{module}.{name}", cimported) for name in names}
        found |= of_names if None not in of_names and names else of_names | {
            file_of(module, cimported)}
    return found - {None, path}


def circles(edges):
    """Sets of files that reach one another (Tarjan)."""
    order, low, stack, found = {}, {}, [], []

    def visit(one):
        order[one] = low[one] = len(order)
        stack.append(one)
        for other in edges[one]:
            if other not in order:
                visit(other)
            if other in stack:
                low[one] = min(low[one], low[other])
        if low[one] == order[one]:
            at = stack.index(one)
            if len(stack) - at > 1:
                found.append(sorted(str(path.relative_to(ROOT)) for path in stack[at:]))
            del stack[at:]

    for one in edges:
        if one not in order:
            visit(one)
    return found


def test_no_circle_of_files():
    edges = {path: files_imported(path) for path in SOURCES}
    processor, values = ROOT / "pylbr/cpu/processor.py", ROOT / "pylbr/cpu/msr/values.py"
    assert values in edges[processor], "imports are read"
    assert ROOT / "pylbr/arch/bits.pxd" in edges[ROOT / "pylbr/cpu/hardware.pyx"]
    assert not circles(edges)
    assert circles({**edges, values: edges[values] | {processor}}), "a circle would be found"


def test_no_production_code_imports_a_twin():
    wrong = [f"{path.relative_to(ROOT)} imports {module}" for path in SOURCES
             if "reference" not in path.stem
             for module, names, _ in statements(path)
             if module.startswith(("pylbr.", "lbrcore"))
             and (re.search(r"(^|[._])reference(_|$)", module)
                  or any(file_of(f"{module}.{name}", False) and "reference" in name
                         for name in names))]
    assert not wrong


#: Where a register's number, a field's mask or a unit may be spelt: rows and what is generated
#: from them; the core's header, and what of it numpy and Python name; the twins.
OWNERS = ("pylbr/arch/rows_", "pylbr/arch/bits.", "pylbr/arch/vmx.py", "lbrcore/include/lbrcore.h",
          "lbrcore/dtypes.py", "lbrcore/config.py", "lbrcore/events.py", "lbrcore/reference",
          "lbrcore/predictor_reference.py")
#: perf's own numbers of the same names (perf_event.h), and the recorder's, which
#: tests/arch/test_bits.py compares.
OTHERS = {"pylbr/perf/abi.py", "pylbr/record/constants.py"}
NAMES = "|".join([
    "LBREN", "LBR_FRZ", "CTR_FRZ", r"FREEZE_LBRS\w*", r"FREEZE_PERFMON\w*", "MISPRED",
    "CYC_CNT_VALID", r"DEBUGCTL_\w+", r"EVTSEL_\w+", r"SELECT_CPL\w*", r"UNIT_\w+", r"WEIGHT_\w+",
    "BRANCHES", "INSTRUCTIONS", "CYCLES",
    *(name for name in vars(bits) if name.isupper() and "_" in name)])
NUMBER = r"(?:0x[0-9A-Fa-f]+|\d+(?: *<< *\d+)?)"
#: MSR numbers that stand for nothing else.
MSRS = r"0x(14C[EF]|1D9|1C8|38[DEF]|39[12]|DA0|C001030[01]|C000010[EF])\b"


def code(path):
    """A file's text without comments and strings."""
    text = path.read_text()
    text = re.sub(r'"""(?:.|\n)*?"""|"[^"\n]*"|\'[^\'\n]*\'', '""', text)
    return re.sub(r"#(?!define).*", "", text)


def own_copies(text):
    """Numbers that some code gives to names that the rows define, and numbers of MSRs."""
    given = re.findall(rf"([A-Za-z_]\w*(?:, *[A-Za-z_]\w*)*) *= *{NUMBER}\b", text)
    names = [name for names in given for name in re.split(", *", names)]
    defined = rf"_?(?:INFO_|CTL_|STATUS_|IA32_)?(?:{NAMES})"
    return [name for name in names if re.fullmatch(defined, name)] + re.findall(MSRS, text, re.I)


def test_facts_are_spelt_once():
    assert own_copies("    MISPRED = 4") and own_copies("_LBR_FRZ = 1 << 58")
    assert own_copies("cpu.wrmsr(0x1D9, 0)") and own_copies("_INFO_MISPRED = 1 << 63")
    assert own_copies("A, _LBREN = 0x6, 1") and not own_copies("few_branches = 4")
    wrong = {}
    for path in SOURCES + tracked("pylbr/**/*.h", "lbrcore/**/*.h"):
        name = str(path.relative_to(ROOT))
        if not name.startswith(OWNERS) and name not in OTHERS:
            found = own_copies(code(path))
            if found:
                wrong[name] = found
    assert not wrong


def defines(path, name):
    """Whether a file defines a function, a class or a method (``Class.method``)."""
    owner, _, function = name.rpartition(".")
    text = path.read_text()
    if path.suffix in (".c", ".h"):
        return re.search(rf"^[\w ]+[ *]{function}\([^;{{]*\)[^;{{]* ?{{", text, re.M)
    if owner:
        found = re.search(rf"^(cdef )?class {owner}\b.*?(?=^\S|\Z)", text, re.M | re.S)
        text = found[0] if found else ""
    return re.search(rf"^ *(def|class|c?p?def [^=\n]*?)\s*\b{function}\b *[(:]", text, re.M)


def test_the_walks_name_what_exists():
    text = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`((?:lbrcore|pylbr)/[\w./]+):([\w.]+)`", text)
    assert len(named) > 40
    missing = [f"{name}:{function}" for name, function in named
               if not (ROOT / name).exists() or not defines(ROOT / name, function)]
    assert not missing


def test_a_name_of_a_dtype_or_parser_means_one_thing():
    """Layouts, and functions that read words of perf, are defined once under their name."""
    places: dict[str, list[str]] = {}
    for path in tracked("lbrcore/*.py", "pylbr/*.py"):
        for name in re.findall(r"^(\w+_DTYPE)\b[^=\n]*= |^def (parse_(?:filter|event|record))\(",
                               path.read_text(), re.M):
            places.setdefault("".join(name), []).append(str(path.relative_to(ROOT)))
    assert "BRANCH_ENTRY_DTYPE" in places and "parse_filter" in places
    assert not {name: found for name, found in places.items() if len(found) > 1}
