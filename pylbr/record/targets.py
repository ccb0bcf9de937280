"""The architectures whose programs QEMU's user mode runs for us."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pylbr.sister.facility import BranchFacility

__all__ = ["TARGETS", "X86_64", "Target", "facility"]


@dataclass(frozen=True, slots=True)
class Target:
    """An architecture.

    Attributes
    ----------
    name : str
        As QEMU, perf and uname spell it.
    machine : int
        e_machine of its programs, 64 bits, little endian.
    title : str
        For a reader.
    depths : tuple of int
        Branches that a stack may have.
    variable : str
        Environment variable that names its QEMU.
    prefix : str
        Where Debian puts the libraries of a foreign architecture; empty: they are at home.
    """

    name: str
    machine: int
    title: str
    depths: tuple[int, ...]
    variable: str
    prefix: str = ""


X86_64: Final = Target("x86_64", 62, "x86-64", (8, 16, 24, 32), "PYLBR_QEMU")
_AARCH64: Final = Target("aarch64", 183, "AArch64", (8, 16, 32, 64), "PYLBR_QEMU_AARCH64",
                         "/usr/aarch64-linux-gnu")
_RISCV64: Final = Target("riscv64", 243, "RISC-V", (16, 32, 64, 128, 256), "PYLBR_QEMU_RISCV64",
                         "/usr/riscv64-linux-gnu")

#: By e_machine.
TARGETS: Final = {target.machine: target for target in (X86_64, _AARCH64, _RISCV64)}


def facility(target: Target, control: int, depth: int) -> BranchFacility:
    """The recorder of an architecture other than x86-64, enabled for user mode.

    Parameters
    ----------
    target : Target
    control : int
        IA32_LBR_CTL, whose class bits become the architecture's own filters.
    depth : int
    """
    from pylbr.arch import bits  # x86-64 does without the rest

    wanted = {
        "COND": control & bits.CTL_COND, "REL_JMP": control & bits.CTL_NEAR_REL_JMP,
        "IND_JMP": control & bits.CTL_NEAR_IND_JMP, "REL_CALL": control & bits.CTL_NEAR_REL_CALL,
        "IND_CALL": control & bits.CTL_NEAR_IND_CALL, "RET": control & bits.CTL_NEAR_RET,
    }
    if target is _AARCH64:
        return _brbe(wanted, depth)
    return _ctr(wanted, depth)


def _brbe(wanted: dict[str, int], depth: int) -> BranchFacility:
    from pylbr.sister.brbe import BrbeState
    from pylbr.sister.brbe_rows import BRBE_ROWS
    from pylbr.sister.config import BrbeConfig
    from pylbr.sister.rows import field_mask

    rows = {row.name: row for row in BRBE_ROWS}
    names = {"COND": "CONDDIR", "REL_JMP": "DIRECT", "IND_JMP": "INDIRECT", "REL_CALL": "DIRCALL",
             "IND_CALL": "INDCALL", "RET": "RTN"}
    state = BrbeState(BrbeConfig(records=depth, el2=False))
    state.write("BRBCR_EL1", field_mask(rows["BRBCR_EL1"], "E0BRE", "CC", "MPRED"))
    state.write("BRBFCR_EL1", field_mask(
        rows["BRBFCR_EL1"], *(names[kind] for kind, bit in wanted.items() if bit)))
    return state


def _ctr(wanted: dict[str, int], depth: int) -> BranchFacility:
    from pylbr.sister.config import CtrConfig
    from pylbr.sister.ctr import CtrState
    from pylbr.sister.ctr_rows import CTR_ROWS
    from pylbr.sister.rows import field_mask

    row = next(row for row in CTR_ROWS if row.name == "mctrctl")
    inhibit = {
        "COND": ("TKBRINH",), "REL_JMP": ("DIRJMPINH", "DIRLJMPINH"),
        "IND_JMP": ("INDJMPINH", "INDLJMPINH"), "REL_CALL": ("DIRCALLINH",),
        "IND_CALL": ("INDCALLINH",), "RET": ("RETINH", "CORSWAPINH"),
    }
    state = CtrState(CtrConfig(depths=(depth,)))
    names = [name for kind, bit in wanted.items() if not bit for name in inhibit[kind]]
    state.write("mctrctl", field_mask(row, "U", *names))
    return state
