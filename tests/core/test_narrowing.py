"""No value of the core is narrowed unawares: its C compiles with -Wconversion as an error."""

import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.once import needs

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for p in (ROOT / "lbrcore").glob("*.c") if p.stem != "_cyutility")


@pytest.mark.slow
def test_the_core_converts_nothing_silently():
    needs("gcc")
    assert len(SOURCES) == len(list((ROOT / "lbrcore").glob("*.pyx"))), "built in place"
    flags = ["-fsyntax-only", "-O1", "-Werror=conversion", "-Wno-sign-conversion",
             f"-I{sysconfig.get_paths()['include']}", f"-I{ROOT / 'lbrcore/include'}"]
    for source in SOURCES:
        done = subprocess.run(["gcc", *flags, str(source)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
