"""The Trace Event Format, as the JSON importer of Perfetto's trace processor takes it.

What that importer rejects or draws wrongly, without it, for every timeline; `test_perfetto.py` asks
the trace processor itself about a few.
"""

import json
from collections import defaultdict

_NUMBER = (int, float)
#: What each phase of an event must have, and of which type.
SCHEMA = {
    "M": {"name": str, "pid": int, "args": dict},
    "X": {"name": str, "pid": int, "tid": int, "ts": _NUMBER, "dur": _NUMBER},
    "B": {"name": str, "pid": int, "tid": int, "ts": _NUMBER},
    "E": {"pid": int, "tid": int, "ts": _NUMBER},
    "i": {"name": str, "pid": int, "tid": int, "ts": _NUMBER, "s": str},
}
_METADATA = {"process_name": {"name": str}, "thread_name": {"name": str},
             "process_sort_index": {"sort_index": int}, "thread_sort_index": {"sort_index": int}}


def _typed(event, what, kinds):
    for name, kind in kinds.items():
        assert isinstance(what[name], kind) and not isinstance(what[name], bool), event


def _nests(track, slices):
    """Slices of one track lie in one another or apart, and no two are at the same place."""
    open_ = []
    for start, end, event in sorted(slices, key=lambda item: (item[0], -item[1])):
        assert end > start >= 0, event
        while open_ and open_[-1] <= start:
            open_.pop()
        assert not open_ or end <= open_[-1], (track, event)
        open_.append(end)
    places = [(start, end) for start, end, _ in slices]
    assert len(set(places)) == len(places), track


def check(text):
    """Slices per track of the trace in this text, if it keeps to the format.

    Raises
    ------
    AssertionError
        With the event, or the track, that does not.
    """
    trace = json.loads(text)
    assert set(trace) <= {"traceEvents", "displayTimeUnit", "otherData"}
    assert trace.get("displayTimeUnit", "ms") in ("ms", "ns")
    slices, begun, last, names = defaultdict(list), defaultdict(list), {}, {}
    for event in trace["traceEvents"]:
        phase = event["ph"]
        _typed(event, event, SCHEMA[phase])
        track = event["pid"], event.get("tid")
        assert event["pid"] > 0 and event.get("tid") != 0, event  # thread 0 is the idle one
        if phase == "M":
            _typed(event, event["args"], _METADATA[event["name"]])
            assert (track, event["name"]) not in names, event
            names[track, event["name"]] = event["args"].get("name")
            continue
        assert event["ts"] >= last.get(track, 0), event  # in the file's order
        last[track] = event["ts"]
        if phase == "X":
            slices[track].append((event["ts"], event["ts"] + event["dur"], event))
        elif phase == "B":
            begun[track].append(event)
        elif phase == "E":
            start = begun[track].pop()
            assert event.get("name", start["name"]) == start["name"], event
            slices[track].append((start["ts"], event["ts"], start))
        elif phase == "i":
            assert event["s"] in "gpt", event
    assert not any(begun.values())
    for track, found in slices.items():
        _nests(track, found)
    for pid, tid in {*slices, *last}:
        assert names[(pid, tid), "thread_name"] and names[(pid, None), "process_name"]
    named = [name for (track, kind), name in names.items() if kind == "process_name"]
    assert len(set(named)) == len(named)
    return {track: [(start, end, event["name"]) for start, end, event in found]
            for track, found in slices.items()}
