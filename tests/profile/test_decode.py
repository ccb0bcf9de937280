import numpy as np
import pytest

from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, BranchType, EntryFlag, entry_flags
from pylbr.perf.stacks import Mmap, Samples
from pylbr.profile.address_space import AddressSpaces
from pylbr.profile.decode import TypeDecoder

KERNEL = 0xFFFF_FFFF_8100_0000
BASE = 0x401000
#: Instruction -> type to its own level, and type from user to kernel.
CODE = {
    "0f05": (BranchType.SYSCALL, BranchType.SYSCALL),  # syscall
    "480f07": (BranchType.SYSRET, BranchType.IRQ),  # sysretq
    "48cf": (BranchType.ERET, BranchType.IRQ),  # iretq
    "cc": (BranchType.UNKNOWN, BranchType.UNKNOWN),  # int3
    "cd80": (BranchType.UNKNOWN, BranchType.UNKNOWN),  # int 0x80
    "48cb": (BranchType.RET, BranchType.IRQ),  # retfq
    "ca0800": (BranchType.RET, BranchType.IRQ),  # retf 8
    "48ff18": (BranchType.IND_CALL, BranchType.IRQ),  # lcall *(%rax)
    "ff28": (BranchType.IND, BranchType.IRQ),  # ljmp *(%rax)
    "ffe0": (BranchType.IND, BranchType.IRQ),  # jmp *%rax
    "e800000000": (BranchType.CALL, BranchType.IRQ),  # call to the next instruction
    "7402": (BranchType.COND, BranchType.IRQ),
    "e902000000": (BranchType.UNCOND, BranchType.IRQ),
    "90": (BranchType.UNKNOWN, BranchType.IRQ),  # nop: something came between
    "06": (BranchType.UNKNOWN, BranchType.UNKNOWN),  # no instruction
}


@pytest.fixture
def decoder(tmp_path):
    """A decoder over a file of `CODE`, each at a multiple of 16."""
    path = tmp_path / "code"
    path.write_bytes(b"".join(bytes.fromhex(text).ljust(16, b"\x90") for text in CODE))
    spaces = AddressSpaces()
    spaces.add(Mmap(7, 7, BASE, 0x1000, 0, str(path)))
    spaces.add(Mmap(7, 7, 0x900000, 0x1000, 0, "/no/such/file"))
    return TypeDecoder(spaces)


def stack(rows, pid=7):
    entries = np.array([rows], BRANCH_ENTRY_DTYPE).reshape(-1)
    return Samples.build(np.array([0, len(rows)]), entries, pid=pid)


def types(samples):
    return (samples.entries["flags"] >> np.uint64(20) & np.uint64(15)).tolist()


def test_the_instruction_tells_the_type(decoder):
    own = stack([(BASE + 16 * i, 0x5000, 0) for i in range(len(CODE))])
    across = stack([(BASE + 16 * i, KERNEL, 0) for i in range(len(CODE))])
    assert types(decoder.fill(own)) == [a for a, _ in CODE.values()]
    assert types(decoder.fill(across)) == [b for _, b in CODE.values()]
    assert types(own) == [0] * len(CODE), "the samples given are left alone"


def test_what_is_known_or_cannot_be_known_stays(decoder):
    kept = [
        (BASE, 0x5000, entry_flags(kind=BranchType.COND)), (BASE, 0x5000, int(EntryFlag.ABORT)),
        (0x900000, 0x5000, 0), (0x10, 0x5000, 0), (KERNEL, KERNEL, 0),
    ]  # fmt: skip
    samples = stack(kept)
    assert decoder.fill(samples).entries.tolist() == samples.entries.tolist()
    assert types(decoder.fill(stack([(BASE, 0x5000, 0)], pid=8))) == [0]
    full = stack([(BASE, 0x5000, entry_flags(kind=BranchType.COND))])
    assert decoder.fill(full) is full
