"""Recording in tests: the command as a user calls it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pylbr import trace
from pylbr.errors import UnsupportedFeature
from pylbr.record.toolchain import tools

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"


def need(condition, reason):
    """Skip where a tool is missing; fail in CI, which has them all."""
    if not condition:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def symbols(path):
    """{name: address} of a non-PIE program."""
    listed = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout
    return {line.split()[2]: int(line.split()[0], 16) for line in listed.splitlines()
            if len(line.split()) == 3}


@pytest.fixture(scope="session")
def qemu():
    """Paths of QEMU and what is built for it."""
    try:
        return tools()
    except UnsupportedFeature as error:
        need(False, str(error))


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Compile a program of tests/record/programs."""
    out = tmp_path_factory.mktemp("programs")

    def compiled(name, *flags, output=None):
        compiler = shutil.which("g++" if name.endswith(".cc") else "gcc")
        need(compiler, "no gcc")
        target = out / (output or Path(name).stem)
        if not target.exists():
            subprocess.run([compiler, "-O1", *flags, "-o", target, PROGRAMS / name, "-lm"],
                           check=True, timeout=120)
        return target

    return compiled


@dataclass
class Run:
    """A finished recording."""

    path: Path
    result: subprocess.CompletedProcess

    def branches(self, *more):
        """Columns of the whole trace, in its order."""
        names = ("from", "to", "class", "instructions", "task", *more)
        with trace.open(self.path) as source:
            chunks = [[np.asarray(chunk.column(n)) for n in names] for chunk in source.chunks()]
            self.metadata = source.metadata
        return dict(zip(names, map(np.concatenate, zip(*chunks, strict=True)), strict=True))

    def classes(self):
        """How many branches of each class."""
        return Counter(self.branches()["class"].tolist())


@pytest.fixture
def pylbr_record_without_qemu(tmp_path):
    """``pylbr record``, in a process of its own."""

    def record(*arguments, full=True, options=(), check=0, **keywords):
        path = tmp_path / ("out.arrow" if full else "out.data")
        if "--engine" not in options:
            options = ("--engine", "qemu", *options)
        result = subprocess.run(
            [sys.executable, "-m", "pylbr", "record", *(["--full"] if full else []), *options,
             "-o", path, "--", *arguments],
            **{"cwd": tmp_path, "capture_output": True, "timeout": 120,
               "env": {**os.environ, "PYTHONPATH": str(ROOT)}, **keywords},
        )
        if check is not None:
            assert result.returncode == check, result.stderr
        return Run(path, result)

    return record


@pytest.fixture
def pylbr_record(qemu, pylbr_record_without_qemu):
    """``pylbr record`` where there is a QEMU."""
    return pylbr_record_without_qemu
