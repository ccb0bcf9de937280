from typing import Any, final

import numpy as np
import numpy.typing as npt

from lbrcore.config import LbrConfig

@final
class LbrState:
    """The LBR facility of one logical processor.

    Parameters
    ----------
    config : LbrConfig
        What the processor offers.

    Notes
    -----
    An instance is used by one thread at a time; batches release the GIL, so different
    instances run in parallel.  A call that raises leaves the state as it was.
    """

    def __new__(cls, config: LbrConfig) -> LbrState: ...
    def record(self, branches: npt.NDArray[np.void]) -> None:
        """Record a batch: all of it, or nothing if a branch is out of range.

        Parameters
        ----------
        branches : buffer of BRANCH_DTYPE, shape (n,), C-contiguous, oldest first
            Read-only and memory-mapped arrays too; nothing is copied.

        Raises
        ------
        TypeError
            Not a buffer, or of another dtype.
        ValueError
            Strided, not one-dimensional, or a class, flag or CPL out of range.
        """

    def record_columns(
        self,
        from_: npt.NDArray[np.uint64],
        to: npt.NDArray[np.uint64],
        cls: npt.NDArray[np.uint8],
        *,
        cycles: npt.NDArray[np.uint32] | None = None,
        flags: npt.NDArray[np.uint8] | None = None,
        cpl_from: npt.NDArray[np.uint8] | int = 3,
        cpl_to: npt.NDArray[np.uint8] | int = 3,
        events: npt.NDArray[np.uint32] | None = None,
    ) -> None:
        """Record a batch given as columns, each of shape (n,), C-contiguous, oldest first.

        Parameters
        ----------
        from_, to : buffer of uint64
        cls : buffer of uint8, `BranchClass`
        cycles : buffer of uint32, core cycles since the previous branch; 0 if left out
        flags : buffer of uint8, `BranchFlag`; 0 if left out
        cpl_from, cpl_to : buffer of uint8, or one level for all
        events : buffer of uint32, the counts of counters 0..3, a byte each from the lowest

        Raises
        ------
        TypeError, ValueError
            As `record`; also if the columns differ in length.
        """

    def record_one(
        self,
        from_: int,
        to: int,
        cls: int,
        *,
        cycles: int = 0,
        instructions: int = 1,
        flags: int = 0,
        cpl_from: int = 3,
        cpl_to: int = 3,
        events: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> None:
        """Record one branch; arguments as the fields of BRANCH_DTYPE."""

    @property
    def ctl(self) -> int:
        """IA32_LBR_CTL, or MSR_LBR_SELECT in the legacy flavour.

        Setting it raises `Fault` for bits that `LbrConfig.ctl_mask` does not hold.
        """

    @ctl.setter
    def ctl(self, value: int) -> None: ...
    @property
    def depth(self) -> int:
        """IA32_LBR_DEPTH.  Setting it, to the present value too, zeroes all records.

        CTL and LER stay.  Raises `Fault` for a depth that is not offered.
        """

    @depth.setter
    def depth(self, value: int) -> None: ...
    @property
    def enable(self) -> bool:
        """IA32_DEBUGCTL.LBR of the legacy flavour."""

    @enable.setter
    def enable(self, value: bool) -> None: ...
    @property
    def frozen(self) -> bool:
        """IA32_PERF_GLOBAL_STATUS.LBR_FRZ: while set, nothing is recorded."""

    @frozen.setter
    def frozen(self, value: bool) -> None: ...
    @property
    def event_mask(self) -> int:
        """Counters whose events are logged (IA32_PERFEVTSELx[35]), a bit each."""

    @event_mask.setter
    def event_mask(self, value: int) -> None: ...
    @property
    def tos(self) -> int:
        """MSR_LASTBRANCH_TOS of the legacy flavour: physical index of the newest record.

        Setting it leaves the physical registers as they are.
        """

    @tos.setter
    def tos(self, value: int) -> None: ...
    @property
    def cycles(self) -> int | None:
        """Cycles since the last record, at most FFFFH; None before the first one."""

    @property
    def active(self) -> bool:
        """Recording: enabled and not frozen."""

    def records(self) -> npt.NDArray[np.void]:
        """All entries as an array of ENTRY_DTYPE, shape (depth,), newest first; a copy."""

    def read_entry(self, i: int) -> tuple[int, int, int]:
        """FROM, TO and INFO of entry `i`, 0 being the newest; `Fault` for i >= depth."""

    def write_entry(self, i: int, from_: int, to: int, info: int) -> None:
        """Write entry `i`; addresses are read back sign-extended from MAXLINADDR."""

    @property
    def ler(self) -> tuple[int, int, int]:
        """IA32_LER_FROM_IP, _TO_IP, _INFO: the last record before an exception or interrupt."""

    @ler.setter
    def ler(self, value: tuple[int, int, int]) -> None: ...
    def reset(self) -> None:
        """Power-up values: all 0, the largest depth."""

    def clear(self) -> None:
        """Zero all records; everything else stays."""

    def copy(self) -> LbrState:
        """An independent state with the same contents."""

    @property
    def config(self) -> LbrConfig:
        """What the processor offers."""

__test__: dict[str, Any]
