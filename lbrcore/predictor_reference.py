"""The predictors in plain Python: the twin of `lbrcore.predictor`."""

from __future__ import annotations

import numpy as np

from lbrcore.dtypes import BranchClass, BranchFlag

__all__ = ["Predictor"]

GSHARE_BITS, BASE_BITS, TAGGED_BITS, TAG_BITS, INDIRECT_BITS = 14, 13, 10, 10, 10
LENGTHS, STACK_DEPTH = (4, 10, 24, 60), 16
U64, U32 = (1 << 64) - 1, (1 << 32) - 1


def mix(address: int) -> int:
    """Address bits that differ between neighbouring branches."""
    return (address ^ address >> 12) & U32


def fold(history: int, length: int, bits: int) -> int:
    """The newest `length` directions in `bits` bits."""
    rest, result = history & ((1 << length) - 1), 0
    while rest:
        result ^= rest & ((1 << bits) - 1)
        rest >>= bits
    return result


class Predictor:
    """See `lbrcore.predictor.Predictor`."""

    def __init__(self, kind: str = "tage") -> None:
        if kind not in ("gshare", "tage"):
            raise ValueError(f"kind: gshare or tage, not {kind!r}")
        self._step = self._tage if kind == "tage" else self._gshare
        self._history = self._path = 0
        self._counters: dict[int, int] = {}
        # Per table: place -> [tag, counter -4..3, useful 0..3].
        self._tables: list[dict[int, list[int]]] = [{} for _ in LENGTHS]
        self._targets: dict[int, int] = {}
        self._calls = [0] * STACK_DEPTH
        self._top = 0

    def mark(self, branches: np.ndarray) -> int:
        """See `lbrcore.predictor.Predictor.mark`."""
        total = 0
        for branch in branches:
            wrong = self._predict(int(branch["from"]), int(branch["to"]), int(branch["class"]))
            flags = int(branch["flags"]) & ~BranchFlag.MISPRED
            branch["flags"] = flags | (BranchFlag.MISPRED if wrong else 0)
            total += wrong
        return total

    def _predict(self, source: int, target: int, cls: int) -> bool:
        wrong = False
        if cls in (BranchClass.COND, BranchClass.NOT_TAKEN):
            taken = cls == BranchClass.COND
            wrong = self._step(source, taken)
            self._history = (self._history << 1 | taken) & U64
        elif cls in (BranchClass.NEAR_IND_JMP, BranchClass.NEAR_IND_CALL):
            place = (mix(source) ^ self._path) % (1 << INDIRECT_BITS)
            wrong = self._targets.get(place, 0) != target
            self._targets[place] = target
            self._path = (self._path << 3 ^ mix(target)) & U64
        elif cls == BranchClass.NEAR_RET:
            self._top = (self._top - 1) % STACK_DEPTH
            wrong = not 1 <= (target - self._calls[self._top]) & U64 <= 15
        if cls in (BranchClass.NEAR_REL_CALL, BranchClass.NEAR_IND_CALL):
            self._calls[self._top] = source
            self._top = (self._top + 1) % STACK_DEPTH
        return wrong

    def _count(self, place: int, taken: bool) -> bool:
        """Prediction of a two-bit counter, which then learns."""
        counter = self._counters.get(place, 0)
        self._counters[place] = min(counter + 1, 3) if taken else max(counter - 1, 0)
        return counter >= 2

    def _gshare(self, source: int, taken: bool) -> bool:
        return self._count((mix(source) ^ self._history) % (1 << GSHARE_BITS), taken) != taken

    def _tage(self, source: int, taken: bool) -> bool:
        place, base = mix(source), mix(source) % (1 << BASE_BITS)
        rows, tags, hits = [], [], []
        for t, length in enumerate(LENGTHS):
            at = (place ^ place >> t + 1 ^ fold(self._history, length, TAGGED_BITS)) % (
                1 << TAGGED_BITS
            )
            rows.append(self._tables[t].setdefault(at, [0, 0, 0]))
            folded = fold(self._history, length, TAG_BITS - 1) << 1
            tags.append((place ^ folded) % (1 << TAG_BITS) + 1)
            if rows[t][0] == tags[t]:
                hits.append(t)
        if hits:
            row = rows[hits[-1]]
            predicted = row[1] >= 0
            if len(hits) > 1:
                alternative = rows[hits[-2]][1] >= 0
            else:
                alternative = self._counters.get(base, 0) >= 2
            if predicted != alternative:
                row[2] = min(row[2] + 1, 3) if predicted == taken else max(row[2] - 1, 0)
            row[1] = min(row[1] + 1, 3) if taken else max(row[1] - 1, -4)
        else:
            predicted = self._count(base, taken)
        if predicted != taken:
            longer = range(hits[-1] + 1 if hits else 0, len(LENGTHS))
            free = next((t for t in longer if rows[t][2] == 0), None)
            if free is not None:
                rows[free][:2] = [tags[free], 0 if taken else -1]
            else:
                for t in longer:
                    rows[t][2] -= 1
        return predicted != taken
