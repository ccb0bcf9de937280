"""A program with a bad layout loses half of its taken branches and more, by every tool."""

import re

import pytest

from tests.record import loop
from tests.record.conftest import PROGRAMS

pytestmark = [pytest.mark.peer, pytest.mark.slow]
SOURCE = PROGRAMS / "layout.c"


def halved(outcome):
    assert loop.run(outcome.before).stdout == loop.run(outcome.after).stdout
    assert loop.taken(outcome.after, "100000") <= 0.5 * loop.taken(outcome.before, "100000")


@pytest.mark.parametrize("version", [16, 19])
def test_bolt(qemu, tmp_path, version):
    outcome = loop.bolt(version, tmp_path, SOURCE)
    assert "traces mismatching disassembled function contents: 0 " in outcome.said
    halved(outcome)


def test_llvm_profgen_and_clang(qemu, tmp_path):
    outcome = loop.profgen(tmp_path, SOURCE)
    # A sample may begin in the start-up code or a stub of the PLT, which are no functions.
    said = re.sub(r"^warning: 0\.00%\(\d+/\d+\) of samples are from ranges that do not belong to "
                  r"any functions\.\n", "", outcome.said)
    assert said.startswith("run:") and "warning" not in said.lower()
    halved(outcome)


def test_autofdo_and_gcc(qemu, tmp_path):
    outcome = loop.autofdo(tmp_path, SOURCE)
    first = outcome.said.splitlines()[0]
    assert first.startswith("run") and int(first.split("total:")[1].split()[0]) > 100_000
    halved(outcome)
