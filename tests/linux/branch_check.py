"""Branch entries of perf.data against the code that ran, as objdump shows it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_LINE = re.compile(r"^ *([0-9a-f]+):\t(?:[0-9a-f]{2} )+[ \t]*"
                   r"(?:(?:addr32|bnd|notrack|repz|cs|data16) )*(\w+)[ \t]*"
                   r"(?:([0-9a-f]+) <)?", re.M)


class Code:
    """The instructions of a program that is linked at a fixed address."""

    def __init__(self, path: Path) -> None:
        text = subprocess.run(["objdump", "-dw", str(path)], check=True, capture_output=True,
                              text=True, timeout=60).stdout
        found = [(int(m[1], 16), m[2], int(m[3], 16) if m[3] else None)
                 for m in _LINE.finditer(text)]
        self.at = {address: (name, target) for address, name, target in found}
        addresses = sorted(self.at)
        self.next = dict(zip(addresses, addresses[1:], strict=False))
        self.after_calls = {self.next.get(a) for a, name, _ in found if name.startswith("call")}

    def kind(self, source: int) -> str:
        """As `KernelCode.kind`, of a near branch."""
        name, direct = self.at.get(source, ("nothing", None))
        if name.startswith("ret"):
            return "ret"
        if name in ("call", "jmp"):
            return name if direct is not None else f"indirect {name}"
        return "cond" if name.startswith(("j", "loop")) else name

    def wrong(self, source: int, target: int) -> str:
        """Why the program has no such branch; empty if it has."""
        name, direct = self.at.get(source, ("nothing", None))
        if name.startswith("ret"):
            return "" if target in self.after_calls else "returns to where no call was"
        if not name.startswith(("j", "call", "loop")):
            return "" if name == "syscall" else f"{name} is no branch"
        if direct is not None and direct != target:
            return f"{name} goes to {direct:#x}"
        return ""

    def connected(self, start: int, end: int) -> bool:
        """Straight code leads from `start` to the branch at `end`."""
        at: int | None = start
        while at is not None and at < end and at in self.at:
            if self.at[at][0].startswith(("jmp", "ret")):
                return False
            at = self.next.get(at)
        return at == end


def stacks(path: Path) -> list[list[tuple[int, int]]]:
    """Branch stacks, newest entry first, as the installed perf prints them."""
    text = subprocess.run(["perf", "script", "-i", str(path), "-F", "brstack"], check=True,
                          capture_output=True, text=True, timeout=60).stdout
    return [[(int(a, 16), int(b, 16)) for a, b in re.findall(
        r"0x([0-9a-f]+)/0x([0-9a-f]+)/", line)] for line in text.splitlines() if line.strip()]


def call_chains(data: bytes, program: Path, folder: Path) -> list[list[tuple[int, int, str]]]:
    """Chains of a recording of `program` in a guest, the callee first: address, and start and name
    of its function; as the installed perf prints them."""
    place = folder / "work" / program.name  # where the guest has it
    place.parent.mkdir()
    place.write_bytes(program.read_bytes())
    path = folder / "perf.data"
    path.write_bytes(data)
    text = subprocess.run(["perf", "script", "-i", str(path), "--symfs", str(folder), "-F",
                           "ip,sym,symoff"], check=True, capture_output=True, text=True,
                          timeout=60).stdout
    at = starts(program)
    return [[(at[name] + int(offset, 16), at[name], name) for name, offset in re.findall(
        r"^\s*[0-9a-f]+ (\S+)\+0x([0-9a-f]+)", chain, re.M)]
            for chain in text.split("\n\n") if chain.strip()]


def starts(program: Path) -> dict[str, int]:
    """Address of each symbol."""
    text = subprocess.run(["nm", str(program)], check=True, capture_output=True, text=True,
                          timeout=60).stdout
    return {name: int(at, 16) for at, _, name in map(str.split, text.splitlines())}
