"""A story as Chrome/Perfetto trace JSON (the Trace Event Format), one micro-step a microsecond."""

from __future__ import annotations

import json

from pylbr.verify.story import Story

__all__ = ["timeline", "timeline_of"]

#: By thread id.  Perfetto takes thread 0, of whatever process, for the idle one: ids begin at 1.
_TRACKS = {1: "task", 2: "mode", 3: "owner of the registers", 4: "what happens", 5: "interrupts"}
_HAPPENS = 4


def _state(cpu: dict) -> tuple[str, str, str, str]:
    mode = f"guest {cpu['guest']}" if cpu["guest"] else "host"
    return (cpu["task"], mode, cpu["owner"], "on" if cpu["irqs"] else "off")


def _slices(steps: list[dict], cpu: int) -> list[dict]:
    """Spans in which task, mode, owner and interrupts stay as they are."""
    events = []
    mine = [(at, step) for at, step in enumerate(steps) if step["cpu"] == cpu]
    for track, index in ((1, 0), (2, 1), (3, 2), (5, 3)):
        start = 0
        value: str | None = _state(mine[0][1]["before"])[index]
        for at, step in [*mine, (len(steps), None)]:
            new = _state(step["after"])[index] if step else None
            if new != value:
                end = at + 1 if step else at
                if end > start:     # not after a change in the last step
                    events.append({"ph": "X", "name": value, "pid": cpu + 1, "tid": track,
                                   "ts": start, "dur": end - start})
                start, value = end, new
    return events


def timeline(story: Story) -> str:
    """JSON that opens in the Perfetto UI or in chrome://tracing."""
    return timeline_of(story.replay())


def timeline_of(steps: list[dict]) -> str:
    """The same of steps as `pylbr.verify.player.Player.steps` has them."""
    events: list[dict] = []
    for cpu in sorted({step["cpu"] for step in steps}):
        events.append({"ph": "M", "name": "process_name", "pid": cpu + 1,
                       "args": {"name": f"CPU {cpu}"}})
        events += [{"ph": "M", "name": "thread_name", "pid": cpu + 1, "tid": tid,
                    "args": {"name": name}} for tid, name in _TRACKS.items()]
        events += _slices(steps, cpu)
    for at, step in enumerate(steps):
        events.append({
            "ph": "X", "name": step["word"], "pid": step["cpu"] + 1, "tid": _HAPPENS, "ts": at,
            "dur": 1, "args": {"records": " ".join(step["after"]["records"]),
                               "recording": step["after"]["recording"]}})
        if step["broken"]:
            events.append({"ph": "i", "s": "g", "name": "broken: " + ", ".join(step["broken"]),
                           "pid": step["cpu"] + 1, "tid": _HAPPENS, "ts": at + 1})
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"})
