"""A real recording, read and written again, is the same to perf."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from peer_tools import perf

from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.script_writer import FIELDS, PerfScript
from pylbr.trace.formats import open_stacks

pytestmark = pytest.mark.peer

DATA = Path(os.environ.get(
    "PYLBR_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"
))  # fmt: skip
FORMS = (
    "ip,brstack", "brstacksym", "comm,pid,tid,time,event,ip,sym,period,brstack",
    "pid,ip,brstackoff",
)  # fmt: skip


@pytest.fixture(params=["perf.data.branch-4.14", "perf.data.raw_callgraph_branch-3.4"])
def recording(request):
    path = DATA / request.param
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def script(path, fields):
    return perf("script", "-i", path, "-F", fields)


def test_perf_reads_the_same_from_both(recording, tmp_path):
    again = tmp_path / "again"
    with open_stacks(recording) as stacks:
        assert write_perf_data(again, stacks) > 0
    for fields in FORMS:
        assert script(again, fields) == script(recording, fields) != ""


def test_our_text_is_perfs_text(recording):
    """But for the order, where perf sorts by time, and callers, which a line of ours has not."""
    fields = [name for name in FIELDS if name not in ("cpu", "ip", "comm")]
    with open_stacks(recording) as stacks:
        formatter = PerfScript(stacks.metadata, fields)
        ours = b"".join(map(formatter.text, stacks)).decode()
    theirs = script(recording, ",".join(fields))
    assert sorted(ours.splitlines()) == sorted(theirs.splitlines())
    assert len(ours.splitlines()) in (13, 513)
