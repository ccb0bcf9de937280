"""The small coding of .lbrt in plain Python: votes on each bit of a rank.

It follows docs/trace-format.md line by line, as `lbrt_reference` does, and is the twin of `_small`.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Voter"]

_M: Final = (1 << 64) - 1
_P: Final = 0x9E3779B97F4A7C15
_Q: Final = 0xD6E8FEB86659FD93
_SHIFTS: Final = (0, 64, 32, 16, 8, 4, 2)
_CURVE: Final = [int(4096 / (1 + math.exp((16 - i) / 2)) + 0.5) for i in range(33)]
_MOST: Final = 1 << 22


def squash(x: int) -> int:
    """A logarithm of odds as a probability, of 4096."""
    x = max(-2047, min(2047, x))
    at, part = (x >> 7) + 16, x & 127
    return (_CURVE[at] * (128 - part) + _CURVE[at + 1] * part + 64) >> 7


def _stretched() -> list[int]:
    table: list[int] = []
    for x in range(-2047, 2048):
        table += [x] * (squash(x) + 1 - len(table))
    return table + [2047] * (4096 - len(table))


_STRETCH: Final = _stretched()


class Voter:
    """What is learned from a piece's start on, and the arithmetic decoding."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 4
        self.low, self.high = 0, 0xFFFFFFFF
        self.code = int.from_bytes((data + bytes(4))[:4], "big")
        self.slots: list[dict[int, tuple[int, int, int]]] = [{} for _ in _SHIFTS]
        self.weights = [[19661] * len(_SHIFTS) for _ in range(64)]
        self.paths: dict[int, list[int]] = {}

    def choose(self, task: int, node: int, ways: int) -> int:
        """The rank of the next edge among `ways`."""
        paths = self.paths.setdefault(task, [0] * len(_SHIFTS))
        length, rank = (ways - 1).bit_length(), 0
        for place in reversed(range(length)):
            if rank | 1 << place < ways:
                prefix = (1 << length | rank) >> place + 1
                rank |= self._bit(paths, node, prefix, ways > 2) << place
        return rank

    def passed(self, task: int, mix: int) -> None:
        """A chosen edge joins the paths."""
        paths = self.paths[task]
        for k, shift in enumerate(_SHIFTS[1:], 1):
            paths[k] = (paths[k] << shift & _M) ^ mix

    def _bit(self, paths: list[int], node: int, prefix: int, many: bool) -> int:
        key = (node * _Q ^ prefix << 48) & _M
        found, votes, sure = [], [], 0
        for k, path in enumerate(paths):
            hashed = (path ^ key) * _P & _M
            where, tag = hashed >> 48, hashed >> 32 & 255
            odds, seen, known = self.slots[k].get(where, (32768, 0, 0))
            if known != tag:
                odds, seen = 32768, 0
            found.append((where, tag, odds, seen))
            votes.append(_STRETCH[odds >> 4] if seen else 0)
            sure = k + 1 if seen else sure
        seen = found[max(sure - 1, 0)][3]
        weights = self.weights[(sure * 4 + (seen > 1) + (seen > 5) + (seen > 20)) * 2 + many]
        probability = squash(sum(v * w >> 16 for v, w in zip(votes, weights, strict=True)))
        bit = self._decode(probability * 16 + 8)
        error = ((bit << 12) - probability) * 6
        for k, (where, tag, odds, seen) in enumerate(found):
            weight = weights[k] + (votes[k] * error + 0x8000 >> 14)
            weights[k] = max(-_MOST, min(_MOST, weight))
            rate = 655360 // (10 * seen + 16)
            odds += (65535 * bit - odds) * rate >> 16
            self.slots[k][where] = odds, min(seen + 1, 60 if k < 2 else 30), tag
        return bit

    def _decode(self, odds: int) -> int:
        middle = self.low + (self.high - self.low >> 16) * odds
        bit = int(self.code <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.at += 1
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = self.high << 8 & 0xFFFFFFFF | 255
            self.code = self.code << 8 & 0xFFFFFFFF | byte
        return bit
