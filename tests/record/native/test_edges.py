"""What is recorded is what the program's code can do, and the program does what it does alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.record.conftest import need
from tests.record.native.stacks import complaints, read

pytestmark = [pytest.mark.peer, pytest.mark.slow]
#: Not a script that chooses an interpreter: processes that execute others are reached late.
PYTHON = os.path.realpath(sys.executable)
SUM = "s=0\nfor i in range(150000): s=(s*31+len(str(i)))&0xffffffff\nprint(s)"
SQL = ("create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c "
       "where x<200000) insert into t select x, x*7%1000 from c; "
       "select count(*), sum(b) from t where b between 10 and 700;")


def recorded(native_record, *command, options=("-F", "4000", "--max-overhead", "100"), stdin=None):
    """The stacks of a command whose output is what it is without the recorder."""
    need(shutil.which(command[0]), f"no {command[0]}")
    alone = subprocess.run(command, capture_output=True, timeout=120, input=stdin)
    path, result = native_record(*command, options=options, check=alone.returncode, input=stdin)
    assert result.stdout == alone.stdout
    return read(path)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(b"".join(b"%d %x\n" % (i * i, i * 77) for i in range(60_000)))
    return path


@pytest.mark.parametrize("command", [
    ("gzip", "-9", "-c", "{text}"), ("xz", "-1", "-c", "{text}"), ("sqlite3", ":memory:", SQL),
    (PYTHON, "-c", SUM), ("perl", "-e", "$s+=$_*3,$s^=5 for 1..800000; print $s"),
    ("sort", "-S1M", "--parallel=2", "-R", "--random-source={text}", "{text}"),
], ids=lambda command: Path(command[0]).name)
def test_every_edge_and_range(native_record, text, command):
    found = recorded(native_record, *(word.replace("{text}", str(text)) for word in command))
    edges, ranges, wrong = complaints(found)
    assert not wrong[:5]
    assert found.count > 50 and edges > 50 and ranges > 50


@pytest.mark.parametrize("depth", [32])
def test_stacks_are_full(native_record, text, depth):
    found = recorded(native_record, "gzip", "-9", "-c", str(text))
    lengths = [len(stack) for stacks in found.stacks.values() for stack in stacks]
    assert sum(n == depth for n in lengths) >= 0.95 * len(lengths)
    assert max(lengths) == depth


@pytest.mark.parametrize(("word", "classes"), [
    ("any_call", {"NEAR_REL_CALL", "NEAR_IND_CALL"}), ("any_ret", {"NEAR_RET"}),
    ("ind_call", {"NEAR_IND_CALL"}), ("ind_jmp", {"NEAR_IND_JMP"}), ("cond", {"COND"}),
])
def test_filters(native_record, word, classes):
    found = recorded(native_record, PYTHON, "-c", SUM,
                     options=("-F", "3000", "--max-overhead", "100", "-j", f"{word},u"))
    from tests.record.oracle import Code

    seen = set()
    for pid, stacks in found.stacks.items():
        code = Code(found.modules[pid])
        for source, _ in {edge for stack in stacks for edge in stack}:
            if code.covers(source):
                seen.add(code.at(source)[1][0].name)
    assert seen == classes
