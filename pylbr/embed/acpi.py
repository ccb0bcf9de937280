"""ACPI tables of the machine: hardware-reduced, so that nothing is expected which is not there.

Source: ACPI 6.5, chapters 5 (tables), 6.4 (resources) and 20 (AML).  With a hardware-reduced
FADT an operating system asks for no PIT, no PIC, no PM timer and no SCI.  The DSDT contains the
serial ports.
"""

from __future__ import annotations

import struct

from pylbr.embed.apic import BASE
from pylbr.embed.cmos import CENTURY
from pylbr.embed.ioapic import IOAPIC_BASE

__all__ = ["RSDP", "SERIAL_INTERRUPTS", "tables"]

#: Where operating systems look for the root pointer: the first paragraph of the BIOS area.
RSDP = 0xE0000
#: Port and pin of the serial ports.
SERIAL_INTERRUPTS = ((0x3F8, 4), (0x2F8, 3))
_FADT_SIZE = 276
_DSDT, _BOOT_ARCHITECTURE, _CENTURY, _FLAGS, _MINOR, _X_DSDT = 40, 109, 108, 112, 131, 140
_WBINVD, _NO_BUTTONS, _HARDWARE_REDUCED = 1, 1 << 4 | 1 << 5, 1 << 20
_NO_VGA, _NO_MSI, _NO_ASPM = 1 << 2, 1 << 3, 1 << 4
_ENABLED = 1
_IOAPIC_ID = 1


def _table(signature: bytes, body: bytes, revision: int) -> bytes:
    head = struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(body), revision, 0, b"PYLBR ",
                       b"MACHINE ", 1, b"PYLB", 1)
    return _summed(head + body, 9, slice(None))


def _summed(table: bytes, at: int, part: slice) -> bytes:
    """`table` with the byte at `at` such that the sum of `part` is 0."""
    out = bytearray(table)
    out[at] = -sum(out[part]) & 0xFF
    return bytes(out)


# AML (ACPI 6.5, 20.2)

def _package(opcode: bytes, body: bytes) -> bytes:
    """An opcode with PkgLength."""
    length = len(body) + 1
    if length < 0x40:
        return opcode + bytes([length]) + body
    length += 1
    return opcode + bytes([0x40 | length & 0xF, length >> 4]) + body


def _name(name: bytes, value: bytes) -> bytes:
    return b"\x08" + name + value


def _eisa(text: str) -> bytes:
    """EISAID("PNP0501") as a DWordConst."""
    letters = [ord(c) - 0x40 for c in text[:3]]
    word = letters[0] << 10 | letters[1] << 5 | letters[2]
    return b"\x0c" + struct.pack(">HH", word, int(text[3:], 16))


def _buffer(data: bytes) -> bytes:
    return _package(b"\x11", b"\x0a" + bytes([len(data)]) + data)


def _serial(number: int, port: int, pin: int) -> bytes:
    resources = struct.pack("<BBHHBB", 0x47, 1, port, port, 1, 8)  # I/O ports (6.4.2.5)
    resources += struct.pack("<BHBBI", 0x89, 6, 0x03, 1, pin)  # edge, active high (6.4.3.6)
    resources += b"\x79\x00"
    return _package(b"\x5b\x82", b"COM" + b"%d" % number + _name(b"_HID", _eisa("PNP0501"))
                    + _name(b"_UID", b"\x0a" + bytes([number]))
                    + _name(b"_STA", b"\x0a\x0f") + _name(b"_CRS", _buffer(resources)))


def _dsdt() -> bytes:
    devices = b"".join(
        _serial(n, *place) for n, place in enumerate(SERIAL_INTERRUPTS, 1))
    return _table(b"DSDT", _package(b"\x10", b"\\_SB_" + devices), 2)


def _madt(processors: int) -> bytes:
    body = struct.pack("<II", BASE, 0)
    for n in range(processors):
        body += struct.pack("<BBBBI", 0, 8, n, n, _ENABLED)
    body += struct.pack("<BBBBII", 1, 12, _IOAPIC_ID, 0, IOAPIC_BASE, 0)
    body += struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)  # LINT1 is NMI
    return _table(b"APIC", body, 4)


def _fadt(dsdt: int) -> bytes:
    fadt = bytearray(_FADT_SIZE)
    struct.pack_into("<I", fadt, _DSDT, dsdt)
    fadt[_CENTURY] = CENTURY
    struct.pack_into("<H", fadt, _BOOT_ARCHITECTURE, _NO_VGA | _NO_MSI | _NO_ASPM)
    struct.pack_into("<I", fadt, _FLAGS, _WBINVD | _NO_BUTTONS | _HARDWARE_REDUCED)
    fadt[_MINOR] = 1
    struct.pack_into("<Q", fadt, _X_DSDT, dsdt)
    return _table(b"FACP", bytes(fadt[36:]), 6)


def tables(processors: int = 1) -> dict[int, bytes]:
    """What is to be written where, for so many processors; the root pointer at `RSDP`."""
    out: dict[int, bytes] = {}
    at = RSDP + 0x100

    def put(table: bytes) -> int:
        nonlocal at
        place, out[at] = at, table
        at = at + len(table) + 63 & ~63
        return place

    fadt, madt = put(_fadt(put(_dsdt()))), put(_madt(processors))
    xsdt = put(_table(b"XSDT", struct.pack("<QQ", fadt, madt), 1))
    root = struct.pack("<8sB6sBIIQB3s", b"RSD PTR ", 0, b"PYLBR ", 2, 0, 36, xsdt, 0, b"")
    out[RSDP] = _summed(_summed(root, 8, slice(20)), 32, slice(None))
    return out
