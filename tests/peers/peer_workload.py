"""A real program's branch stream from the real processor, and samples of it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import capstone
import numpy as np
from elftools.elf.elffile import ELFFile

from lbrcore import ENTRY_DTYPE, BranchClass
from pylbr.files.elf import ElfImage
from pylbr.perf.abi import BranchSample, SampleType
from pylbr.perf.batch import SampleBatch
from pylbr.perf.entries import perf_samples
from pylbr.perf.stacks import Comm, Event, Exit, Mmap, Samples, StacksMetadata

HERE = Path(__file__).parent
PID = 4711
USER_ANY = int(BranchSample.USER | BranchSample.ANY)
EVENT = Event(
    name="branches:u", type=0, config=4, period=97,
    sample_type=int(SampleType.IP | SampleType.TID | SampleType.TIME | SampleType.PERIOD
                    | SampleType.BRANCH_STACK),
    branch_sample_type=USER_ANY,
)  # fmt: skip
METADATA = StacksMetadata(events=(EVENT,), command_line=("pylbr", "replay", "workload"))
TAKEN_DTYPE = np.dtype(
    [("from", "u8"), ("to", "u8"), ("instructions", "u8"), ("class", "u1")]
)

_GROUPS = {
    "call": (BranchClass.NEAR_REL_CALL, BranchClass.NEAR_IND_CALL),
    "jmp": (BranchClass.NEAR_REL_JMP, BranchClass.NEAR_IND_JMP),
}


def compile_c(source: str, target: Path, *flags: str) -> Path:
    subprocess.run(["gcc", "-O2", *flags, "-o", target, HERE / source], check=True)
    return target


@dataclass(frozen=True)
class Workload:
    """The program, what it did, and where its code lies.

    `taken` are the taken branches, oldest first; `instructions` counts from the one before.
    """

    binary: Path
    taken: np.ndarray
    mmaps: tuple[Mmap, ...]

    def stream(self, samples: Samples) -> tuple[StacksMetadata, list[object]]:
        """What a writer takes: the program's start, its samples, its end."""
        first, last = Comm(PID, PID, "workload", True), Exit(PID, 1, PID, 1, time=1 << 40)
        return METADATA, [first, *self.mmaps, samples, last]


def record(binary: Path, stepper: Path, out: Path) -> Workload:
    """Run a static `binary` instruction by instruction."""
    subprocess.run([stepper, out, binary], check=True, stdout=subprocess.DEVNULL, timeout=120)
    rip = np.fromfile(out, "<u8")
    sizes, classes = _decode(binary, np.unique(rip))
    index = np.searchsorted(np.unique(rip), rip)
    size, cls = sizes[index][:-1], classes[index][:-1]
    follows = rip[1:] == rip[:-1] + size
    taken = np.flatnonzero((cls != 255) & (~follows | (cls != BranchClass.COND)))
    result = np.empty(len(taken), TAKEN_DTYPE)
    result["from"], result["to"] = rip[taken], rip[taken + 1]
    result["instructions"] = np.diff(taken, prepend=-1)
    result["class"] = cls[taken]
    return Workload(binary, result, tuple(executable_maps(binary)))


def executable_maps(binary: Path) -> list[Mmap]:
    """The MMAP2 records of a static program's code, page by page as the kernel maps it."""
    image = ElfImage(binary)
    with open(binary, "rb") as file:
        segments = [
            s.header for s in ELFFile(file).iter_segments("PT_LOAD") if s.header.p_flags & 1
        ]
    maps = []
    for s in segments:
        start, end = s.p_vaddr & ~0xFFF, s.p_vaddr + s.p_filesz + 0xFFF & ~0xFFF
        maps.append(Mmap(PID, PID, start, end - start, s.p_offset & ~0xFFF, str(binary),
                         build_id=image.build_id))  # fmt: skip
    return maps


def _decode(binary: Path, addresses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Size and class of the instruction at each address; class 255: no branch."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    image, data = ElfImage(binary), binary.read_bytes()
    sizes = np.zeros(len(addresses), "u8")
    classes = np.full(len(addresses), 255, "u1")
    for i, address in enumerate(addresses.tolist()):
        offset = next(o + address - v for o, n, v, _ in image.segments if v <= address < v + n)
        instruction = next(decoder.disasm(data[offset : offset + 16], address, 1))
        sizes[i] = instruction.size
        name = instruction.mnemonic.removeprefix("bnd ").removeprefix("notrack ")
        if name in _GROUPS:
            direct = instruction.operands[0].type == capstone.x86.X86_OP_IMM
            classes[i] = _GROUPS[name][0 if direct else 1]
        elif name in ("ret", "repz ret"):
            classes[i] = BranchClass.NEAR_RET
        elif instruction.group(capstone.CS_GRP_JUMP):
            classes[i] = BranchClass.COND
    return sizes, classes


def sample(workload: Workload, period: int = 23, depth: int = 32) -> Samples:
    """A stack of the `depth` newest branches after every `period` of them.

    Cycles are the instructions since the entry before, so that every block has IPC 1; every
    fifth branch is marked as mispredicted.
    """
    taken = workload.taken
    points = np.arange(max(period, depth), len(taken), period)
    rows = points[:, None] - 1 - np.arange(depth)
    entries = np.empty(rows.shape, ENTRY_DTYPE)
    entries["from"], entries["to"] = taken["from"][rows], taken["to"][rows]
    entries["info"] = (
        1 << 60 | taken["class"][rows].astype("u8") << np.uint64(56)
        | np.minimum(taken["instructions"][rows], 0xFFFF)
        | (rows % 5 == 0).astype("u8") << np.uint64(63)
    )  # fmt: skip
    batch = SampleBatch.build(
        taken["to"][points - 1], entries, pid=PID, tid=PID,
        time=1_000_000 + np.arange(len(points)) * 1000, period=period,
    )  # fmt: skip
    return perf_samples(batch, USER_ANY)
