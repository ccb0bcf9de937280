"""Replay of one stretch by several threads.

What a part of the trace does depends on the facility and the counters before it.  Both are
guessed: the facility from the summaries of the parts before, composed, and the counters from
what each event counts there.  A guess is wrong where freezing or skid reaches over a seam; then
that part is replayed again from the state that the part before left.  So the samples are always
those of one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from lbrcore.replay import Replay, SampleBuffer
from lbrcore.rows import Rows

__all__ = ["run_parallel"]

#: Branches below which threads cost more than they give.
_SMALLEST_PART = 1 << 14
_CAPACITY = 1024


def run_parallel(
    replay: Replay, rows: Rows, first: int, last: int, threads: int
) -> Iterator[SampleBuffer]:
    """Samples of rows `first` to `last`, in their order; `replay` is then at `last`.

    Parameters
    ----------
    replay : Replay
    rows : Rows
    first, last : int
    threads : int
    """
    parts = min(threads, (last - first) // _SMALLEST_PART)
    if parts < 2 or not replay.lbr.active:
        yield from _run(replay, rows, first, last)
        return
    seams = [first + (last - first) * k // parts for k in range(parts + 1)]
    spans = list(zip(seams, seams[1:], strict=False))
    with ThreadPoolExecutor(parts) as pool:
        guesses = [replay.copy()]
        for description in pool.map(lambda span: replay.describe(rows, *span), spans[:-1]):
            guess = guesses[-1].copy()
            guess.skip(*description)
            guesses.append(guess)
        keys = [guess.key for guess in guesses]
        runs = [
            pool.submit(lambda guess, span: list(_run(guess, rows, *span)), guess, span)
            for guess, span in zip(guesses, spans, strict=True)
        ]
        before = replay
        for guess, key, span, run in zip(guesses, keys, spans, runs, strict=True):
            found = run.result()
            if before.key == key:
                before = guess
            else:
                found = list(_run(before, rows, *span))
            yield from found
    replay.become(before)


def _run(replay: Replay, rows: Rows, first: int, last: int) -> Iterator[SampleBuffer]:
    while first < last:
        out = SampleBuffer(_CAPACITY + replay.count, replay.lbr.depth)
        first = replay.run(rows, out, first, last)
        if out.count:
            yield out
