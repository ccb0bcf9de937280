"""Stubs of the procedure linkage table, as GNU ld, gold, lld and mold write them for x86-64.

Sources: the x86-64 psABI, 5.2 and its IBT variant; the tables of these linkers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

__all__ = ["stub_names"]

_JMP_THROUGH: Final = b"\xff\x25"  # jmp *disp32(%rip)
_PUSH: Final = 0x68  # push imm32: number of the relocation
#: Offsets of a PUSH that begins a lazy stub; the second follows an ENDBR64.
_PUSH_AT: Final = (0, 4)
_USUAL: Final = 16


def stub_names(
    code: bytes, address: int, size: int, slots: Mapping[int, str], lazy: Sequence[str]
) -> Iterator[tuple[int, str]]:
    """(link address, ``name@plt``) of every entry of a section; no name where none is known.

    Parameters
    ----------
    code : bytes
        Contents of the section.
    address, size : int
        Its link address; that of an entry, where the section header gives it.
    slots : mapping of int to str
        Names by the address of their slot in the global offset table.
    lazy : sequence of str
        Names by the number that lazy stubs push.
    """
    size = size if size in (8, _USUAL) else _USUAL
    for at in range(0, len(code), size):
        name = _name(code[at : at + size], address + at, slots, lazy)
        yield address + at, f"{name}@plt" if name else ""


def _name(stub: bytes, address: int, slots: Mapping[int, str], lazy: Sequence[str]) -> str:
    at = stub.find(_JMP_THROUGH)
    if 0 <= at <= len(stub) - 6:
        after = at + 6
        displacement = int.from_bytes(stub[at + 2 : after], "little", signed=True)
        return slots.get(address + after + displacement, "")
    for at in _PUSH_AT:
        if len(stub) >= at + 5 and stub[at] == _PUSH:
            number = int.from_bytes(stub[at + 1 : at + 5], "little")
            return lazy[number] if number < len(lazy) else ""
    return ""
