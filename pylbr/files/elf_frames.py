"""The table of .eh_frame_hdr: where each stretch of code with call frames of its own begins.

Linux Standard Base, Core, 10.6.2.  Linkers and compilers write it for unwinding, so that stripped
files have it, too.
"""

from __future__ import annotations

import numpy as np

__all__ = ["frame_starts"]

_VERSION, _UDATA4, _TABLE = 1, 0x03, 0x3B  # table: DW_EH_PE_datarel | DW_EH_PE_sdata4
_ROW = np.dtype([("start", "<i4"), ("entry", "<i4")])
_HEAD = 12


def frame_starts(data: bytes, address: int) -> list[int]:
    """Link addresses of the table's rows.

    Parameters
    ----------
    data : bytes
        The section.
    address : int
        Its link address.

    Returns
    -------
    list of int
        Empty where the section has another form than what GNU ld, gold, lld and mold write.
    """
    if len(data) < _HEAD or data[0] != _VERSION or data[2] != _UDATA4 or data[3] != _TABLE:
        return []
    count = int.from_bytes(data[8:_HEAD], "little")
    count = min(count, (len(data) - _HEAD) // _ROW.itemsize)
    rows = np.frombuffer(data, _ROW, count, _HEAD)
    found: list[int] = (rows["start"].astype("i8") + address).tolist()
    return [start for start in found if start >= 0]
