"""A user's program: it is type-checked, and then run with the name of a file."""

from __future__ import annotations

import sys

import pylbr


def hottest(path: str) -> tuple[str, int]:
    profile: pylbr.FileProfile = pylbr.profile_of(path, history=2)
    rows = profile.rows("functions", limit=1)
    table = profile.to_arrow("edges")
    count: int = table.num_rows
    assert len(profile.to_pandas("edges")) == count
    assert profile.to_polars("history", limit=1).height == 1
    return str(rows[0]["function"]), count


def samples_of(path: str) -> int:
    with pylbr.open(path) as source:
        if isinstance(source, pylbr.Trace):
            return 0
        return sum(len(batch) for batch in source.samples())


def recorded(path: str) -> int:
    recording: pylbr.Recording = pylbr.record(["/bin/true"], path, frequency=2000)
    return recording.exit_code


def depth() -> int:
    cpu = pylbr.Processor("sapphire-rapids")
    lbr: pylbr.LbrState = cpu.lbr
    return lbr.depth


if __name__ == "__main__":
    name, edges = hottest(sys.argv[1])
    print(pylbr.__version__, name, edges, samples_of(sys.argv[1]), depth())
