"""Every instruction of executables and libraries: the decoder beside capstone.

``python -m tests.x86.sweep [DIRECTORY or FILE ...]`` walks over the code sections of every x86-64
ELF file, by default of what Debian installs, prints what differs, what is refused inside functions
and is none of the documented refusals, and a table of counts; it fails if there is either.

Sections of code contain data, too: tables of cryptography, of Go, of hand-written assembly.  What
the unwind information (.eh_frame) covers is code.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import capstone
import iced_x86
import numpy as np
from capstone import x86 as cs
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from lbrcore import BranchClass
from tests.x86.decoder import compiled, decode_one

DEBIAN = ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec", "/usr/games")
KINDS = ("same", "refused: undefined", "refused: ambiguous", "no code", "alone", "length",
         "class", "target")
#: The decoder answers, and capstone otherwise or not at all.
DIFFERENCES = ("length", "class", "target")
_FINDING = np.dtype([("at", "u8"), ("kind", "u1"), ("mine", "u1"), ("judge", "u1"),
                     ("cls", "u1")], align=True)
_CALL, _JUMP, _NONE = 0xFD, 0xFE, 0xFF
_ROOM = 1 << 16


def _classes() -> np.ndarray:
    """Class by capstone's instruction id."""
    table = np.full(cs.X86_INS_ENDING, _NONE, np.uint8)
    named = {name[len("X86_INS_"):]: value for name, value in vars(cs).items()
             if name.startswith("X86_INS_")}
    conditions = ["A", "AE", "B", "BE", "E", "G", "GE", "L", "LE", "NE", "NO", "NP", "NS", "O",
                  "P", "S", "CXZ", "ECXZ", "RCXZ"]
    groups = {
        BranchClass.COND: ["J" + c for c in conditions] + ["LOOP", "LOOPE", "LOOPNE"],
        BranchClass.NEAR_RET: ["RET"],
        BranchClass.FAR_BRANCH: ["LJMP", "LCALL", "RETF", "RETFQ", "RSM"],
        BranchClass.SYSCALL: ["SYSCALL", "SYSENTER"],
        BranchClass.SYSRET: ["SYSRET", "SYSRETQ", "SYSEXIT", "SYSEXITQ"],
        BranchClass.IRET: ["IRET", "IRETD", "IRETQ"],
        BranchClass.SOFT_INT: ["INT", "INT3"], BranchClass.EXCEPTION: ["INT1"],
        BranchClass.TSX_ABORT: ["XABORT"], _CALL: ["CALL"], _JUMP: ["JMP"],
    }
    for branch, names in groups.items():
        for name in names:
            table[named[name]] = branch
    return table


class _Judge(ctypes.Structure):
    _fields_ = [("next", ctypes.c_void_p), ("handle", ctypes.c_size_t),
                ("insn", ctypes.c_void_p), ("size_at", ctypes.c_size_t),
                ("op_str_at", ctypes.c_size_t), ("classes", ctypes.c_void_p),
                ("ids", ctypes.c_size_t)]


class Sweep:
    """Counts by kind, and what differed."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(KINDS), np.uint64)
        self._found = np.zeros(_ROOM, _FINDING)
        self._results = self.counts.ctypes.data, self._found.ctypes.data
        self._library = compiled("sweep.c")
        self._library.sweep.restype = ctypes.c_size_t
        self._library.sweep.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64,
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        self._engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._insn = capstone._cs_insn()
        self._table = _classes()
        self._judge = _Judge(
            ctypes.cast(capstone._cs.cs_disasm_iter, ctypes.c_void_p).value,
            self._engine.csh.value, ctypes.addressof(self._insn), capstone._cs_insn.size.offset,
            capstone._cs_insn.op_str.offset, self._table.ctypes.data, len(self._table))

    def over(self, code: bytes, address: int = 0) -> list[tuple[str, bytes, int, int]]:
        """Walk over `code`: kind, bytes, own and judge's length of what is not the same."""
        n = self._library.sweep(
            ctypes.byref(self._judge), code, len(code), address, *self._results, _ROOM)
        return [
            (KINDS[row["kind"]], code[row["at"]:int(row["at"]) + 15], int(row["mine"]),
             int(row["judge"])) for row in self._found[:n]
        ]


def functions(elf: ELFFile) -> np.ndarray:
    """Start and end of what .eh_frame covers, by start; none if the file has no index of it."""
    none = np.zeros((0, 2), np.int64)
    index, frames = (elf.get_section_by_name(name) for name in (".eh_frame_hdr", ".eh_frame"))
    if index is None or frames is None or index.data()[:4] != bytes([1, 0x1B, 3, 0x3B]):
        return none
    table = np.frombuffer(index.data()[12:], "<i4")
    table = table[:len(table) & ~1].reshape(-1, 2).astype(np.int64) + index["sh_addr"]
    body, at = np.frombuffer(frames.data(), np.uint8), table[:, 1] - frames["sh_addr"]
    table, at = (rows[(at >= 0) & (at + 16 <= len(body))] for rows in (table, at))
    if not len(at):
        return none
    begin, size = body[at[:, None] + np.arange(8, 16)].view("<i4").astype(np.int64).T
    stated = (begin + table[:, 1] + 8 == table[:, 0]) & (size > 0)  # both encoded as usual
    return np.stack([table[:, 0], table[:, 0] + size], 1)[stated]


def code_sections(path: Path) -> Iterator[tuple[str, int, bytes, np.ndarray]]:
    """Name, address, bytes and functions of the code sections of an x86-64 ELF file."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                return
            elf = ELFFile(file)
            if elf["e_machine"] != "EM_X86_64" or elf.elfclass != 64:
                return
            known = functions(elf)
            for section in elf.iter_sections():
                if section["sh_flags"] & 4 and section["sh_type"] == "SHT_PROGBITS":
                    yield section.name, section["sh_addr"], section.data(), known
    except (OSError, ELFError, ValueError, KeyError):
        return


def pieces(address: int, body: bytes, known: np.ndarray) -> Iterator[tuple[bool, int, bytes]]:
    """A section cut where functions begin and end: covered by one, address, bytes."""
    at, end = address, address + len(body)
    for start, stop in known[np.argsort(known[:, 0])].tolist():
        if start < at or stop > end:
            continue
        if start > at:
            yield False, at, body[at - address:start - address]
        yield True, start, body[start - address:stop - address]
        at = stop
    if at < end:
        yield False, at, body[at - address:]


_DETAILED = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
_DETAILED.detail = True
_SETS = {cs.X86_GRP_XOP, cs.X86_GRP_FMA4, cs.X86_GRP_3DNOW, cs.X86_GRP_TBM}
_TRAPS = {"ud0", "ud1", "femms"}
_PADLOCK = ("xcrypt", "xstore", "xsha", "montmul")


def documented(kind: str, code: bytes) -> bool:
    """Is it refused as insn.h and decode.h say, or answered as iced-x86 does?

    XOP and other sets that Intel never had, UD0 and UD1, near branches with 66, APX."""
    if kind == "alone":
        found = next(iced_x86.Decoder(64, code), None)
        return bool(found) and found.code != iced_x86.Code.INVALID and (
            found.len == decode_one(code.hex())["length"])
    found = next(_DETAILED.disasm(code, 0, 1), None)
    if found is None or kind == "refused: ambiguous":
        return found is not None and 0x66 in found.prefix and bool(
            {cs.X86_GRP_JUMP, cs.X86_GRP_CALL, cs.X86_GRP_RET} & set(found.groups))
    return bool(_SETS & set(found.groups)) or found.mnemonic in _TRAPS or (
        found.mnemonic.split()[-1].startswith(_PADLOCK))


def files(roots: list[str]) -> Iterator[Path]:
    """Regular files below `roots`, each once."""
    seen = set()
    for root in roots:
        paths = [Path(root)] if os.path.isfile(root) else (
            Path(folder, name) for folder, _, names in os.walk(root) for name in names)
        for path in paths:
            if path.is_symlink() or not path.is_file():
                continue
            status = path.stat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                yield path


def main() -> int:
    sweep, examples, number, faults, covered = Sweep(), Counter(), 0, 0, 0
    for path in files(sys.argv[1:] or list(DEBIAN)):
        bodies = list(code_sections(path))
        number += bool(bodies)
        for in_function, name, kind, code, mine, judge in (
                (piece[0], section[0], *row) for section in bodies
                for piece in pieces(*section[1:]) for row in sweep.over(piece[2], piece[1])):
            key = kind, code[:max(mine, judge)][:6].hex(" "), in_function
            examples[key] += 1
            covered += in_function
            if kind in DIFFERENCES or in_function and not documented(kind, code):
                faults += 1
                if examples[key] == 1:
                    print(f"{path} {name}: {kind}: {code.hex(' ')}: {mine}, capstone {judge}",
                          flush=True)
    for (kind, code, in_function), count in examples.most_common(60):
        print(f"{count:8} {kind}: {code}{'' if in_function else ' (no function)'}")
    print(f"{number} files; {covered} findings in functions, {faults} of all not documented")
    for kind, count in zip(KINDS, sweep.counts.tolist(), strict=True):
        print(f"{count:14,} {kind}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
