"""A story as Chrome/Perfetto trace JSON (the Trace Event Format), one micro-step a microsecond."""

from __future__ import annotations

import json

from pylbr.verify.story import Story

__all__ = ["timeline"]

_TRACKS = ("task", "mode", "owner of the registers", "what happens", "interrupts")


def _state(cpu: dict) -> tuple[str, str, str, str]:
    mode = f"guest {cpu['guest']}" if cpu["guest"] else "host"
    return (cpu["task"], mode, cpu["owner"], "on" if cpu["irqs"] else "off")


def _slices(steps: list[dict], cpu: int) -> list[dict]:
    """Spans in which task, mode, owner and interrupts stay as they are."""
    events = []
    mine = [(at, step) for at, step in enumerate(steps) if step["cpu"] == cpu]
    for track, index in ((0, 0), (1, 1), (2, 2), (4, 3)):
        start = 0
        value: str | None = _state(mine[0][1]["before"])[index]
        for at, step in [*mine, (len(steps), None)]:
            new = _state(step["after"])[index] if step else None
            if new != value:
                end = at + 1 if step else at
                if end > start:     # not after a change in the last step
                    events.append({"ph": "X", "name": value, "pid": cpu, "tid": track,
                                   "ts": start, "dur": end - start})
                start, value = end, new
    return events


def timeline(story: Story) -> str:
    """JSON that opens in the Perfetto UI or in chrome://tracing."""
    steps = story.replay()
    events: list[dict] = []
    for cpu in sorted({step["cpu"] for step in steps}):
        events.append({"ph": "M", "name": "process_name", "pid": cpu,
                       "args": {"name": f"CPU {cpu}"}})
        events += [{"ph": "M", "name": "thread_name", "pid": cpu, "tid": tid,
                    "args": {"name": name}} for tid, name in enumerate(_TRACKS)]
        events += _slices(steps, cpu)
    for at, step in enumerate(steps):
        events.append({
            "ph": "X", "name": step["word"], "pid": step["cpu"], "tid": 3, "ts": at,
            "dur": 1, "args": {"records": " ".join(step["after"]["records"]),
                               "recording": step["after"]["recording"]}})
        if step["broken"]:
            events.append({"ph": "i", "s": "g", "name": "broken: " + ", ".join(step["broken"]),
                           "pid": step["cpu"], "tid": 3, "ts": at + 1})
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"})
