from typing import Any, final

from lbrcore.lbr import LbrState
from pylbr.arbitration.microsteps import Policy

HOST_FROM: int
HOST_TO: int
XSAVES: int

@final
class ContendedCpu:
    """One CPU, the vCPU that runs on it, and host perf.

    Parameters
    ----------
    policy : Policy
    registers : LbrState
        Of a processor fresh from reset; copied.  The guest runs when the instance is made.

    Attributes
    ----------
    registers : LbrState
        A view of the registers; what is written to it is in force at once.
    exited : int
        VM exits so far.
    leaked : int
        Records of the host that the guest has read.
    failures : int
        Bits of a policy's own invariants that broke.

    Raises
    ------
    ConfigurationError
        The policy is for the other flavour of LBRs.
    """

    def __init__(self, policy: Policy, registers: LbrState) -> None: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def registers(self) -> LbrState: ...
    @property
    def exited(self) -> int: ...
    @property
    def failures(self) -> int: ...
    leaked: int
    def exits(self, instruction: int) -> bool:
        """Does this instruction (`XSAVES` ...) of the running guest exit?"""

    def read(self, view: LbrState) -> None:
        """An intercepted XSAVES: put into `view` what the guest is shown."""

    def debugctl(self, value: int) -> None:
        """A write of IA32_DEBUGCTL, legacy LBRs."""

    def restore(self, view: LbrState) -> None:
        """An intercepted XRSTORS, which left this in `view`."""

    def load(self, view: LbrState, lost: bool) -> None:
        """User space sets what it has read of a vCPU elsewhere, its `lost` among it."""

    def debug_exception(self) -> None:
        """A #DB is delivered to the guest."""

    def stop_recording(self) -> None:
        """Legacy LBRs: IA32_DEBUGCTL.LBR of the running guest is cleared."""

    def freeze(self, frozen: bool) -> None:
        """The guest's LBR_FRZ; none is emulated for legacy LBRs (spec 6)."""

    def show(self, view: LbrState) -> None:
        """Put into `view` what the guest would be shown; nothing happens by that."""

    def leave(self) -> None:
        """VM exit; what follows happens in the host, until `enter`."""

    def enter(self) -> None:
        """VM entry."""

    def branches(self, count: int) -> None:
        """The host takes so many branches."""

    def open(self, flags: int) -> bool:
        """perf_event_open with bits of EventFlag, and of EVENT_ON_TASK; False if refused."""

    def close(self) -> bool:
        """Close the host's oldest event; False if there is none."""

    def switch(self, branches: int) -> None:
        """Another task runs for so many branches, then the vCPU's again."""

    def migrate(self) -> None:
        """User space reads the vCPU's registers and sets them in a fresh one."""

    def sample(self) -> tuple[bool, bool, int, int]:
        """A PMI of the host: records present, marked as cut; how many are the host's own, and
        how many are not."""

    @property
    def lost(self) -> bool:
        """The policy tells the guest that records were lost."""

    @property
    def guest_owns(self) -> bool:
        """The registers hold the guest's records."""

    @property
    def guest_debugctl(self) -> int:
        """IA32_DEBUGCTL as the hypervisor keeps it, legacy LBRs."""

__test__: dict[str, Any]
