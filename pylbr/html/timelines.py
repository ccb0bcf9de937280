"""Timelines in the Trace Event Format: lanes of spans, and marks."""

from __future__ import annotations

import json
import math
import os
from typing import Any, Final

from pylbr.errors import TraceError
from pylbr.printable import printable

__all__ = ["read_timeline"]

_LARGEST: Final = 1 << 26
_MOST: Final = 10_000
_FEW: Final = 8  # names in a lane that shows a state
_LONGEST: Final = 300


def read_timeline(path: str, number: int) -> dict[str, Any]:
    """Lanes, spans and marks of a file that ``pylbr verify --out``
    has written.

    Parameters
    ----------
    path : str
    number : int
        Of the timeline on its page.

    Raises
    ------
    TraceError
        It cannot be read, or is no file of that format.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise TraceError(path, f"cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise TraceError(path, "is larger than 64 MiB: no timeline")
    try:
        content = json.loads(data)
        events = content["traceEvents"] if isinstance(content, dict) else content
        found = _timeline(path, number, content, events)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise TraceError(path, "is no timeline in the Trace Event Format") from error
    if not found["spans"]:
        raise TraceError(path, "has no spans: nothing to draw")
    return found


def _text(value: object) -> str:
    return printable(str(value))[:_LONGEST]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no time")
    return value


def _timeline(path: str, number: int, content: Any, events: list[Any]) -> dict[str, Any]:
    processes = {e["pid"]: _text(e["args"]["name"]) for e in events
                 if e["ph"] == "M" and e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]): _text(e["args"]["name"]) for e in events
               if e["ph"] == "M" and e["name"] == "thread_name"}
    lanes: dict[tuple[Any, Any], int] = {key: at for at, key in enumerate(sorted(threads))}
    spans: list[list[Any]] = []
    marks: list[list[Any]] = []
    for event in events:
        if event["ph"] not in ("X", "i"):
            continue
        lane = lanes.setdefault((event["pid"], event.get("tid", 0)), len(lanes))
        start = _number(event["ts"])
        if event["ph"] == "X":
            note = ", ".join(f"{_text(k)}: {_text(v)}" for k, v in event.get("args", {}).items())
            spans.append([lane, _text(event["name"]), start, _number(event["dur"]), note])
        else:
            marks.append([lane, _text(event["name"]), start])
    several = len({pid for pid, _ in lanes}) > 1
    names: dict[int, set[str]] = {}
    for span in spans:
        names.setdefault(span[0], set()).add(span[1])
    shown = sorted(lanes, key=lambda key: lanes[key])
    metadata = content.get("otherData", {}) if isinstance(content, dict) else {}
    return {
        "name": _text(os.path.basename(path)), "number": number,
        "unit": _text(metadata.get("unit", "micro-steps")),
        "end": max([span[2] + span[3] for span in spans] + [mark[2] for mark in marks], default=0),
        "lanes": [{
            "name": " ".join(filter(None, (
                processes.get(key[0], _text(key[0])) if several or key not in threads else "",
                threads.get(key, "")))) or _text(key[1]),
            "states": len(names.get(lanes[key], ())) <= _FEW,
        } for key in shown],
        "spans": spans[:_MOST], "marks": marks[:_MOST],
        "markNames": "; ".join(sorted({mark[1] for mark in marks})[:_FEW]),
        "cut": max(0, len(spans) - _MOST),
    }  # fmt: skip
