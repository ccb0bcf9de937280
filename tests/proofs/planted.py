"""Faults that the proofs must find: edits of the library's C file, each a slip one could make."""

from __future__ import annotations

__all__ = ["PLANTED", "plant"]

#: Name : (the text as it is, as it becomes, the flavour, and the part of `Theorems` that fails).
PLANTED = {
    "a pop clears the slot before the far end": (
        "t3 = (at->head - state->depth);", "t3 = (at->head - state->depth + 1);", 0,
        "recording"),
    "the quick call stack clears the slot before the far end": (
        "(((uint32_t)pop) & (~state->depth))", "(((uint32_t)pop) & (1 - state->depth))", 1,
        "recording"),
    "a pop restarts the cycles": (
        "state->cycles = (cycles & (~keep));", "state->cycles = (cycles & (~(keep | pop)));", 0,
        "recording"),
    "cycles count from a branch that was not recorded": (
        "at->cycles_valid = (accept != 0);", "at->cycles_valid = 1;", 0, "recording"),
    "FROM alone tells whether the list is empty": (
        "t2 = ((newest->from | newest->to)", "t2 = ((newest->from)", 0, "recording"),
    "the second counter's bit decides for all": (
        "((mask >> i) & 1)", "((mask >> 1) & 1)", 0, "recording"),
    "the ring of the branch's start decides": (
        "((meta >> 20) & 0x30)", "((meta >> 12) & 0x30)", 0, "recording"),
    "a write of the depth keeps the list": (
        "  lbr_clear(state);\n  if (LBR_DEPTH_WRITE_CLEARS_LER)",
        "  if (LBR_DEPTH_WRITE_CLEARS_LER)", 0, "depths"),
    "XSAVES writes TO as it was recorded": (
        "lbr_canonical(state, entry->to)", "entry->to", 0, "packing"),
}


def plant(text: str, name: str) -> str:
    """The C file with one fault in it."""
    old, new, *_ = PLANTED[name]
    if text.count(old) != 1:
        raise ValueError(f"{name}: {old!r} stands {text.count(old)} times in the library's C file; "
                         "give tests/proofs/planted.py its present text")
    return text.replace(old, new)
