"""Tests of perf itself in the guest: the short form of ``python -m tests.linux.perf_tests``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.linux.perf_tests import BRSTACK, brstack_files

pytestmark = pytest.mark.peer

#: Ring buffer and counters read in user space; records; switches; a ring read backwards; samples.
NUMBERS = (4, 8, 35, 51, 78)
#: The first half of the script: the permutations of filters are left to the whole form.
USER_BRANCHES = BRSTACK.replace("echo 400 >", "echo 40 >").replace(
    "dash /usr/lib/perf-core/tests/shell/test_brstack.sh",
    "sed '/^test_filter \\|^test_filter\\t/d' /usr/lib/perf-core/tests/shell/test_brstack.sh "
    "> short.sh; dash short.sh")


def test_samples_and_records(linux):
    command = "; ".join(f"perf test {number} 2>&1 | cat" for number in NUMBERS)
    result, printed, _ = linux.run(
        command, {"../usr/local/bin/sleep": Path("/bin/sleep")}, limit=10_000_000_000)
    assert (result.ending.kind, result.ending.code) == ("exit", 0)
    outcomes = re.findall(r"^ *([0-9.]+): .*\S *: (\S.*)$", printed, re.M)
    assert outcomes == [(number, "Ok") for number in ("4.1", "4.2", "4.3", "8", "35", "51", "78")]


def test_brstack(linux, tmp_path):
    """Each kind of branch of its program is in the branch stacks, by the script's own patterns."""
    assert "short.sh" in USER_BRANCHES and "echo 40 >" in USER_BRANCHES
    result, printed, _ = linux.run(USER_BRANCHES, brstack_files(tmp_path), limit=20_000_000_000)
    assert (result.ending.kind, result.ending.code) == ("exit", 0), printed
    kinds = re.findall(r"^\w+\+0x[0-9a-f]+/\w+\+0x[0-9a-f]+/.*/(\w+)$", printed, re.M)
    assert kinds == ["IND_CALL", "CALL", "CALL", "CALL", "RET", "RET", "COND", "UNCOND"]
