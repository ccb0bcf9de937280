"""Every instruction of executables and libraries: the decoder beside capstone.

``python -m tests.x86.sweep [DIRECTORY or FILE ...]`` walks over the code sections of every x86-64
ELF file, by default of what Debian installs, prints what differs and a table of counts, and
fails if there is a difference.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import capstone
import numpy as np
from capstone import x86 as cs
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from lbrcore import BranchClass
from tests.x86.decoder import compiled

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
        found = np.zeros(_ROOM, _FINDING)
        text = np.frombuffer(code, np.uint8)
        n = self._library.sweep(
            ctypes.byref(self._judge), text.ctypes.data, len(code), address,
            self.counts.ctypes.data, found.ctypes.data, len(found))
        return [
            (KINDS[row["kind"]], code[row["at"]:int(row["at"]) + 15], int(row["mine"]),
             int(row["judge"])) for row in found[:n]
        ]


def code_sections(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Name, address and bytes of the code sections of an x86-64 ELF file; none of others."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                return
            elf = ELFFile(file)
            if elf["e_machine"] != "EM_X86_64" or elf.elfclass != 64:
                return
            for section in elf.iter_sections():
                if section["sh_flags"] & 4 and section["sh_type"] == "SHT_PROGBITS":
                    yield section.name, section["sh_addr"], section.data()
    except (OSError, ELFError, ValueError, KeyError):
        return


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
    sweep, examples, number = Sweep(), Counter(), 0
    for path in files(sys.argv[1:] or list(DEBIAN)):
        bodies = list(code_sections(path))
        number += bool(bodies)
        for name, address, body in bodies:
            for kind, code, mine, judge in sweep.over(body, address):
                key = kind, code[:max(mine, judge)][:6].hex(" ")
                examples[key] += 1
                if kind in DIFFERENCES and examples[key] == 1:
                    print(f"{path} {name}: {kind}: {code.hex(' ')}: {mine}, capstone {judge}",
                          flush=True)
    for (kind, code), count in examples.most_common(60):
        print(f"{count:8} {kind}: {code}")
    print(f"{number} files")
    for kind, count in zip(KINDS, sweep.counts.tolist(), strict=True):
        print(f"{count:14,} {kind}")
    return int(any(sweep.counts[KINDS.index(kind)] for kind in DIFFERENCES))


if __name__ == "__main__":
    sys.exit(main())
