"""The plain twin of `_expand`."""

from __future__ import annotations

import numpy as np

from pylbr.record.wire_numbers import PAYLOAD

__all__ = ["expand"]

#: Blocks of a way at most.
_BLOCKS = 64


def expand(words: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """See `_expand.expand`."""
    result: list[int] = []
    for at, word in enumerate(words.tolist()):
        if word >= PAYLOAD:
            result.append(word)
            continue
        first, count = ways[word].tolist() if word < len(ways) else (0, _BLOCKS + 1)
        if count > _BLOCKS:
            raise ValueError(f"word {at}: no way out has the number {word}")
        result += [(first + k) % 2**32 for k in range(count)]
    return np.array(result, np.uint32)
