"""The consumers, and what they say: they exit 0 on nonsense, so their numbers are parsed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

LLVM = {version: Path(f"/usr/lib/llvm-{version}/bin") for version in (16, 19, 22)}
VERSIONS = (16, 19)
BOLTS = (*VERSIONS, 22)  # the first that reads trace lines


def need(program: str | os.PathLike[str]) -> str:
    """Path of a tool; skips the test without it, or fails it where CI is set."""
    found = shutil.which(program)
    if found is None:
        message = f"{program} is not installed; .ci/peers installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end; its output as text."""
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300,
        errors="replace",
    )  # fmt: skip


def checked(*command: object) -> str:
    """Output of a tool that must exit 0."""
    done = run(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def perf2bolt(version, source, binary, out, *options):
    """Mismatching traces, by perf2bolt's own count."""
    # Under its suffixed name the tool acts as llvm-bolt.
    tool = need(LLVM[version] / "perf2bolt")
    if "-pa" not in options:
        need("perf")
    done = run(tool, "-p", source, "-o", out, *options, binary)
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    found = re.search(r"traces mismatching disassembled function contents: (\d+)", text)
    assert found, text
    return int(found[1])


def fdata_edges(path):
    """(function, offset, function, offset) -> (mispredicted, count)."""
    edges = {}
    for line in Path(path).read_text().splitlines():
        word = line.split()
        if len(word) == 8:
            names = word[1].split("/")[0], word[4].split("/")[0]
            edges[names[0], int(word[2], 16), names[1], int(word[5], 16)] = (
                int(word[6]), int(word[7]),
            )  # fmt: skip
    return edges


def profgen(version, binary, out, **source):
    """Warnings of llvm-profgen that speak of wrong samples; the profile is in `out`."""
    tool = need(LLVM[version] / "llvm-profgen")
    if "perfdata" in source:
        need("perf")
    (option, path), = source.items()
    done = run(tool, f"--{option}={path}", f"--binary={binary}", f"--output={out}",
               "--format=text")  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if "warning" in line and "more samples" not in line]


def llvm_prof(binary, out, *options):
    """AutoFDO's profile as text."""
    checked(need("create_llvm_prof"), f"--binary={binary}", f"--out={out}", "--format=text",
            *options)  # fmt: skip
    return Path(out).read_text()


def totals(text):
    """Function -> samples, of AutoFDO's or llvm-profgen's text."""
    found = re.findall(r"^(\w+)[.\w]*:(\d+):", text, re.M)
    return {name: int(count) for name, count in found}


def perf(*words):
    return checked(need("perf"), *words)


def blocks(data):
    """IPC of each block, as perf's own decoder finds it."""
    text = perf("script", "-i", data, "-F", "brstackinsn")
    return [float(ipc) for ipc in re.findall(r"([0-9.]+) IPC", text)]
