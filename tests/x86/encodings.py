"""Byte strings that reach every corner of the opcode maps."""

from __future__ import annotations

import numpy as np

_PREFIXES = np.array(
    [0x66, 0x67, 0xF2, 0xF3, 0x64, 0x65, 0x2E, 0x3E, 0xF0, 0x40, 0x41, 0x48, 0x4F], np.uint8)


def _any(rng, n):
    return rng.integers(0, 256, (n, 16), dtype=np.uint8)


def one_byte(rng, n):
    return _any(rng, n)


def prefixed(rng, n):
    """One to three prefixes, often of map 0F after them."""
    strings = _any(rng, n)
    for i in range(3):
        some = rng.random(n) < (1, 0.6, 0.3)[i]
        strings[some, i] = rng.choice(_PREFIXES, some.sum())
    two = rng.random(n) < 0.5
    strings[two, rng.integers(1, 4, n)[two]] = 0x0F
    return strings


def map_0f(rng, n):
    strings = _any(rng, n)
    strings[:, 0] = 0x0F
    return strings


def map_0f_prefixed(rng, n):
    strings = _any(rng, n)
    strings[:, 0] = rng.choice([0x66, 0xF2, 0xF3, 0x48], n)
    strings[:, 1] = 0x0F
    return strings


def three_byte(rng, n):
    """Maps 0F 38 and 0F 3A."""
    strings = _any(rng, n)
    strings[:, 0] = rng.choice([0x66, 0xF2, 0xF3, 0x2E, 0x48], n)
    strings[:, 1] = 0x0F
    strings[:, 2] = rng.choice([0x38, 0x3A], n)
    return strings


def vex(rng, n):
    strings = _any(rng, n)
    strings[:, 0] = rng.choice([0xC4, 0xC5], n)
    long = strings[:, 0] == 0xC4
    strings[long, 1] = strings[long, 1] & 0xE0 | rng.choice([1, 2, 3], long.sum())
    unused = rng.random(n) < 0.5  # VEX.vvvv of instructions that have no such operand
    strings[unused & long, 2] |= 0x78
    strings[unused & ~long, 1] |= 0x78
    return strings


def evex(rng, n):
    """EVEX of AVX-512: most strings have the reserved bits right."""
    strings = _any(rng, n)
    strings[:, 0] = 0x62
    strings[:, 1] = strings[:, 1] & 0xF0 | rng.choice([1, 2, 3, 5, 6], n)
    strings[:, 2] |= 4
    unused = rng.random(n) < 0.5
    strings[unused, 2] |= 0x78
    strings[unused, 3] |= 8
    plain = rng.random(n) < 0.5  # no zeroing, no broadcast
    strings[plain, 3] &= 0x6F
    return strings


def amd(rng, n):
    """XOP and 3DNow!."""
    strings = _any(rng, n)
    strings[:, 0] = rng.choice([0x8F, 0x0F], n)
    xop = strings[:, 0] == 0x8F
    strings[xop, 1] = strings[xop, 1] & 0xE0 | rng.choice([8, 9, 10], xop.sum())
    strings[~xop, 1] = 0x0F
    return strings


def apx(rng, n):
    """REX2, EVEX map 4, and EVEX with the bits that name the registers above 15."""
    strings = _any(rng, n)
    strings[:, 0] = rng.choice([0xD5, 0x62], n)
    extended = np.flatnonzero(strings[:, 0] == 0x62)
    promoted = rng.random(len(extended)) < 0.5
    strings[extended, 1] = strings[extended, 1] & 0xF0 | np.where(promoted, 4, 9)
    strings[extended, 2] |= 4
    return strings


KINDS = (one_byte, prefixed, map_0f, map_0f_prefixed, three_byte, vex, evex)
