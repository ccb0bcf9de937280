"""The description of types that a Linux kernel carries in itself (BTF).

Source: Linux, Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["Btf", "Member"]

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("<HBBIIIII")
_TYPE: Final = struct.Struct("<III")
_STRUCT: Final = 4
#: By kind: bytes after the type's own 12, and those of each of its `vlen`.
_AFTER: Final = {
    1: (4, 0), 2: (0, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 7: (0, 0), 8: (0, 0),
    9: (0, 0), 10: (0, 0), 11: (0, 0), 12: (0, 0), 13: (0, 8), 14: (4, 0), 15: (0, 12), 16: (0, 0),
    17: (4, 0), 18: (0, 0), 19: (0, 12),
}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A member of a structure: bytes before it, and the number of its type."""

    offset: int
    type: int


class Btf:
    """Structures by their names."""

    def __init__(self, types: bytes, strings: bytes) -> None:
        self._types, self._strings = types, strings
        self._structs: dict[int, int] = {}  # by the offset of the name: where the type is
        at = 0
        while at + _TYPE.size <= len(types):
            name, info, _ = _TYPE.unpack_from(types, at)
            kind, count = info >> 24 & 31, info & 0xFFFF
            if kind not in _AFTER:
                break
            if kind == _STRUCT and name:
                self._structs.setdefault(name, at)
            fixed, each = _AFTER[kind]
            at += _TYPE.size + fixed + each * count

    @classmethod
    def read(cls, data: bytes) -> Btf | None:
        """None for what is no BTF."""
        if len(data) < _HEADER.size:
            return None
        magic, _, _, head, types, types_size, strings, strings_size = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            return None
        return cls(data[head + types:head + types + types_size],
                   data[head + strings:head + strings + strings_size])

    def struct(self, name: str) -> dict[str, Member]:
        """Members of a structure by name; empty if there is no such structure."""
        wanted = b"\0" + name.encode() + b"\0"
        at = self._strings.find(wanted)
        while at >= 0 and at + 1 not in self._structs:
            at = self._strings.find(wanted, at + 1)
        if at < 0:
            return {}
        place, found = self._structs[at + 1], {}
        _, info, _ = _TYPE.unpack_from(self._types, place)
        for number in range(info & 0xFFFF):
            where = place + _TYPE.size + 12 * number
            if where + 12 > len(self._types):
                break
            text, kind, bits = _TYPE.unpack_from(self._types, where)
            bits &= 0xFFFFFF if info >> 31 else 0xFFFFFFFF
            found[self._text(text)] = Member(bits // 8, kind)
        return found

    def _text(self, at: int) -> str:
        return self._strings[at:self._strings.find(b"\0", at)].decode("latin-1")
