"""Programs that the recorder is measured on, and recording them without a command line."""

from __future__ import annotations

import os
import random
from pathlib import Path

from pylbr.bench.contest import Setting
from pylbr.record.engine import Outcome, Request, Sink, engine
from pylbr.record.trace_output import TraceOutput

__all__ = ["commands", "record", "recorded_trace"]

SQL = ("with recursive c(x) as (values(1) union all select x+1 from c where x<{n}) "
       "select sum(x*x%7), count(distinct x%1000) from c;")


def commands(directory: Path, scale: int) -> dict[str, list[str]]:
    """{name: command}; the work grows with `scale`."""
    text = directory / "text"
    choose = random.Random(1)
    words = [bytes(choose.choices(b"etaoinshrdlu", k=choose.randint(2, 9))) for _ in range(3000)]
    text.write_bytes(b" ".join(choose.choices(words, k=300_000 * scale)))
    loop = f"print(sum(i * i % 7 for i in range({300_000 * scale})))"
    return {
        "gzip": ["/bin/gzip", "-6", "-c", str(text)],
        "sqlite3": ["/usr/bin/sqlite3", ":memory:", SQL.format(n=40_000 * scale)],
        "python3": ["/usr/bin/python3", "-I", "-S", "-c", loop],
    }


def record(request: Request, sink: Sink, name: str = "qemu") -> Outcome:
    """Record a program and discard its output."""
    null, saved = os.open(os.devnull, os.O_WRONLY), os.dup(1)
    os.dup2(null, 1)
    try:
        outcome = engine(name).run(request, sink, lambda: None)
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(null)
    if outcome.exit_code or outcome.gaps:
        raise RuntimeError(f"{request.command[0]}: {outcome}")
    return outcome


def recorded_trace(setting: Setting) -> Path:
    """A program's every branch, conditional branches that fell through included.

    Raises
    ------
    UnsupportedFeature
        There is no QEMU with plugins.
    """
    request = Request(tuple(commands(setting.directory, 1 if setting.quick else 4)["python3"]),
                      full=True)
    path = setting.directory / "recorded.lbrt"
    with TraceOutput(str(path), request, engine("qemu")) as out:
        record(request, out)
    return path
