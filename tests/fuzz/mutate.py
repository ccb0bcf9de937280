"""Changing bytes: blindly, as numbers, as text, and as JSON."""

from __future__ import annotations

import json
import random
import re
from typing import Any

#: Numbers at the borders of what fields hold.
BORDERS = (
    0, 1, 2, 7, 8, 15, 16, 31, 32, 33, 63, 64, 127, 128, 255, 256, 4095, 4096, 65535, 65536,
    (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 47) - 1, 1 << 47, (1 << 63) - 1, 1 << 63,
    (1 << 64) - 1,
)
_WORDS = (b"\0", b"\n", b"\t", b" ", b"-", b"/", b"0x", b"=>", b"\xff", b"\xc3\x28", b"%s", b"[",
          b"\x1b[31m", b"9" * 400, b"a" * 5000)


def blind(rng: random.Random, seed: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """One to four changes, wherever they fall."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if not data:
            break
        rng.choice(_CHANGES)(rng, data, others)
    return bytes(data)


def _flip(rng: random.Random, data: bytearray, _: tuple[bytes, ...]) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, data: bytearray, _: tuple[bytes, ...]) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def _number(rng: random.Random, data: bytearray, _: tuple[bytes, ...]) -> None:
    """A field of 2, 4 or 8 bytes, aligned more often than not."""
    size = rng.choice((2, 4, 8))
    at = rng.randrange(len(data))
    at -= at % size if rng.random() < 0.8 else 0
    old = int.from_bytes(data[at:at + size], "little")
    value = rng.choice((*BORDERS, old + 1, old - 1, old * 2, len(data), len(data) - at))
    data[at:at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def _cut(rng: random.Random, data: bytearray, _: tuple[bytes, ...]) -> None:
    del data[rng.randrange(len(data)):]


def _drop(rng: random.Random, data: bytearray, _: tuple[bytes, ...]) -> None:
    at = rng.randrange(len(data))
    del data[at:at + rng.choice((1, 2, 4, 8, 16, 64))]


def _repeat(rng: random.Random, data: bytearray, _: tuple[bytes, ...]) -> None:
    at, size = rng.randrange(len(data)), rng.choice((1, 4, 8, 24, 64))
    data[at:at] = data[at:at + size] * rng.choice((1, 2, 9))


def _splice(rng: random.Random, data: bytearray, others: tuple[bytes, ...]) -> None:
    other = rng.choice(others) if others else bytes(data)
    if other:
        start, size = rng.randrange(len(other)), rng.choice((4, 8, 32, 200))
        at = rng.randrange(len(data))
        data[at:at + rng.choice((0, size))] = other[start:start + size]


_CHANGES = (_flip, _byte, _byte, _number, _number, _number, _cut, _drop, _repeat, _splice)


def text(rng: random.Random, seed: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """A number, a word or a line of a text changed; or blindly."""
    kind = rng.randrange(4)
    numbers = list(re.finditer(rb"[0-9a-fA-F]+", seed)) if kind == 0 else ()
    if numbers:
        place = rng.choice(numbers)
        value = rng.choice(BORDERS)
        form = rng.choice((b"%d", b"%x", b"-%d", b"0x%x"))
        return seed[:place.start()] + form % value + seed[place.end():]
    if kind == 1:
        at = rng.randrange(len(seed) + 1)
        return seed[:at] + rng.choice(_WORDS) + seed[at + rng.choice((0, 0, 1, 5)):]
    if kind == 2:
        lines = seed.splitlines(keepends=True)
        at = rng.randrange(len(lines))
        lines[at:at + rng.choice((0, 1))] = rng.choice((
            [], [lines[at]] * 3, [rng.choice(lines)], [lines[at].strip() + lines[at]]))
        return b"".join(lines)
    return blind(rng, seed, others)


def json_text(rng: random.Random, seed: bytes) -> bytes:
    """One or two values of a JSON text changed."""
    return json.dumps(json_value(rng, json.loads(seed))).encode()


def json_value(rng: random.Random, value: Any) -> Any:
    """The same with one or two values changed, removed or repeated."""
    for _ in range(rng.choice((1, 1, 2))):
        places = list(_places(value))
        if places:
            _change(rng, *rng.choice(places))
    return value


def _places(value: Any) -> Any:
    """(container, key) of every value inside."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(
        value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


def _change(rng: random.Random, owner: Any, key: Any) -> None:
    old, kind = owner[key], rng.randrange(10)
    if kind == 0:
        del owner[key]
    elif kind == 1 and isinstance(owner, list):
        owner.insert(key, old)
    elif kind == 2:
        owner[key] = rng.choice((None, True, [], {}, "", "x", 1.5, -1, [old], {"a": old}, "\0"))
    elif isinstance(old, bool):
        owner[key] = rng.choice((not old, 2, "yes"))
    elif isinstance(old, int):
        owner[key] = rng.choice((
            *BORDERS, old ^ 1 << rng.randrange(64), old ^ 1 << rng.randrange(8), old + 1, old - 1,
            -old, 1 << 64, 10 ** 30, rng.getrandbits(64), rng.getrandbits(16)))
    elif isinstance(old, str) and old and rng.random() < 0.9:
        at = rng.randrange(len(old))
        owner[key] = old[:at] + rng.choice("0123456789abcdef-x\0\ud800 ") + old[at + 1:]
    elif isinstance(old, list) and old:
        owner[key] = rng.choice((old[:-1], old * 2, old[::-1], old[:1] * 4096))
    else:
        owner[key] = rng.choice((0, "x", [], None))
