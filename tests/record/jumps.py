"""Blocks that jump at random, and a container of small groups, which often numbers edges again."""

import numpy as np

from pylbr.record.wire_numbers import BLOCK_DTYPE
from pylbr.trace import lbrt_writer


def small_groups(monkeypatch, rows):
    """Let a .lbrt file have groups of so many rows, in pieces of 32."""
    monkeypatch.setattr(lbrt_writer, "GROUP_ROWS", rows)
    monkeypatch.setattr(lbrt_writer, "PIECE_ROWS", 32)
    monkeypatch.setattr(lbrt_writer, "_FEW_ROWS", 1 << 14)


def blocks(rng):
    """(table, pool): 40 blocks of conditional jumps, 16 bytes apart, to one of them."""
    rows = [(0,) * 8] + [
        (0x1000 + 16 * i, 0x1000 + 16 * int(rng.integers(0, 40)), 0, 6, 4, 2, 5, 0)
        for i in range(40)]
    return np.array(rows, BLOCK_DTYPE), np.full(2, 3, np.uint8)
