"""The function table from plain ctypes: what any language with a C interface does.

Run it: ``python facility.py``.
"""

import ctypes

import lbrcore


class Branch(ctypes.Structure):
    """lbr_branch of lbrcore.h."""

    _fields_ = [
        ("from_", ctypes.c_uint64), ("to", ctypes.c_uint64), ("cycles", ctypes.c_uint32),
        ("instructions", ctypes.c_uint32), ("cls", ctypes.c_uint8), ("flags", ctypes.c_uint8),
        ("cpl_from", ctypes.c_uint8), ("cpl_to", ctypes.c_uint8), ("events", ctypes.c_uint8 * 4),
    ]


class Entry(ctypes.Structure):
    """lbr_entry."""

    _fields_ = [("from_", ctypes.c_uint64), ("to", ctypes.c_uint64), ("info", ctypes.c_uint64)]


class Config(ctypes.Structure):
    """lbr_config."""

    _fields_ = [
        ("flavour", ctypes.c_uint8), ("depth_bitmap", ctypes.c_uint8), ("depth", ctypes.c_uint8),
        ("linear_width", ctypes.c_uint8), ("event_counters", ctypes.c_uint8),
        ("quirks", ctypes.c_uint8), ("reserved", ctypes.c_uint8 * 2),
        ("ctl_mask", ctypes.c_uint64), ("info_mask", ctypes.c_uint64),
    ]


class Table(ctypes.Structure):
    """The head of lbrcore_api, as far as this example goes; members are only appended."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in (
            "abi_version", "struct_size", "branch_size", "entry_size", "config_size",
            "state_size",
        )),
        ("create", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(Config))),
        ("destroy", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("copy", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)),
        ("reset", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("record", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Branch))),
        ("record_batch", ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Branch), ctypes.c_size_t)),
        ("write_ctl", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64)),
        ("write_depth", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64)),
        ("set_enable", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)),
        ("set_frozen", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)),
        ("set_event_mask", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)),
        ("write_tos", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)),
        ("read_entry", ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(Entry))),
    ]


def table() -> Table:
    """The table in the capsule, its sizes compared with the structures above."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    found = Table.from_address(pointer(lbrcore._C_API, b"lbrcore._C_API"))
    sizes = (found.branch_size, found.entry_size, found.config_size)
    if found.abi_version != 1 or sizes != tuple(map(ctypes.sizeof, (Branch, Entry, Config))):
        raise ImportError(f"lbrcore's ABI {found.abi_version} is not the one written down here")
    return found


def main() -> None:
    """Ten calls at CPL 3 into a facility of depth 8; print what is left of them."""
    api = table()
    config = Config(depth_bitmap=0x01, linear_width=48, ctl_mask=0x7F000F,
                    info_mask=0xFF0000000000FFFF)
    state = api.create(config)
    if not state or api.write_ctl(state, 0x7F0007):
        raise SystemExit("no facility of this configuration")
    for i in range(10):
        api.record(state, Branch(0x401000 + 16 * i, 0x402000, 5, 5, 4, 0, 3, 3))
    entry, i = Entry(), 0
    while api.read_entry(state, i, entry) == 0:  # -2 is #GP: i >= depth
        print(f"{i} {entry.from_:#x} -> {entry.to:#x} type {entry.info >> 56 & 15}")
        i += 1
    api.destroy(state)


if __name__ == "__main__":
    main()
