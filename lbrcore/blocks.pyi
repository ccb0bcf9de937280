from collections.abc import Callable
from typing import Any, final

import numpy as np
import numpy.typing as npt

from lbrcore.blocks_reference import BlockFacts
from lbrcore.lbr import LbrState

@final
class BlockRecorder:
    """Records the branches between the blocks that a translating emulator executes.

    Parameters
    ----------
    state : LbrState
        Facility that records.
    classify : callable
        ``classify(address, size)`` says what the block is (`BlockFacts`); asked once a block and
        again when its code was translated anew.  None: the block will be entered again.
    attention : callable, optional
        ``attention(address)`` is called at the entry of the block at which a `limit` is
        reached.  True if that block is not going to be executed now.
    drain : callable, optional
        Takes the log as an array of BRANCH_DTYPE, oldest first, whenever it is full.
    failed : callable, optional
        Takes an exception that one of the others raised inside a hook.  Without it, `check`
        raises it.
    engine, read : int
        Addresses of the emulator and of its ``int read(engine, int register, void *value)``.
        Without them the privilege level is `cpl` and flags are 0.
    registers : tuple of int
        Numbers of CS, RFLAGS and RCX for `read`.
    log : int
        Branches that the log holds; 0 for none.  The log tells of every branch, whatever the
        facility filters, and of conditional branches that fell through (`NOT_TAKEN`).

    Notes
    -----
    A cycle is one instruction: the emulator has no other clock.  A call to the next
    instruction is no branch, an instruction under REP retires once.  Taken conditional
    branches to the next instruction are told by the flags.

    An instance must outlive the hooks that it was given to.
    """

    def __new__(
        cls,
        state: LbrState,
        classify: Callable[[int, int], BlockFacts | None],
        *,
        attention: Callable[[int], object] | None = None,
        drain: Callable[[npt.NDArray[np.void]], object] | None = None,
        failed: Callable[[BaseException], object] | None = None,
        engine: int = 0,
        read: int = 0,
        registers: tuple[int, int, int] = (0, 0, 0),
        log: int = 0,
    ) -> BlockRecorder: ...
    @property
    def hooks(self) -> tuple[int, int, int]:
        """Addresses for the emulator: block hook, translation hook, their last argument.

        ``void block(void *engine, uint64_t address, uint32_t size, void *last)``;
        ``void translated(void *engine, uc_tb *block, uc_tb *previous, void *last)``.
        """

    def enter(self, address: int, size: int) -> None:
        """The block hook, called from Python."""

    def translated(self, address: int) -> None:
        """The block at `address` was translated anew: classify it again."""

    def settle(self, address: int) -> None:
        """Execution stopped with the instruction pointer at `address`."""

    def interrupted(self, address: int, cls: int | None, served: bool = False) -> None:
        """An exception or interrupt of class `cls` was raised at `address`.

        It is recorded when its handler is entered.  None: not recorded (debug exceptions).
        `address` is that of the faulting or next instruction, for INT n the one behind it.
        `served`: the emulator may serve it without a handler; if execution then goes on within
        15 bytes of `address`, nothing is recorded.
        """

    def cancel(self) -> None:
        """What was `interrupted` has no handler: nothing is recorded."""

    def emulated(self, address: int) -> None:
        """The block is left in front of the instruction at `address`, which a hook emulates."""

    def retired(self, count: int) -> None:
        """A hook has emulated `count` instructions that are no branches."""

    def take_instructions(self) -> int:
        """Instructions since the last branch; the next branch does not tell of them again."""

    def limit(self, instructions: int | None = None, branches: int | None = None) -> None:
        """Call `attention` at the first block after so many more of either."""

    def flush(self) -> None:
        """Forget what is known of all blocks."""

    def drain(self) -> npt.NDArray[np.void]:
        """Empty the log: its branches as an array of BRANCH_DTYPE, oldest first."""

    def check(self) -> None:
        """Raise what a callback raised inside a hook."""

    @property
    def state(self) -> LbrState: ...
    @property
    def cpl(self) -> int:
        """Privilege level, read from CS after each branch that may change it."""

    @cpl.setter
    def cpl(self, value: int) -> None: ...
    @property
    def direct(self) -> bool:
        """Branches go into the facility at once; False: only into the log."""

    @direct.setter
    def direct(self, value: bool) -> None: ...
    @property
    def logging(self) -> bool:
        """Branches go into the log; at first if there is one."""

    @logging.setter
    def logging(self, value: bool) -> None: ...
    @property
    def block(self) -> tuple[int, int] | None:
        """Start and end of the block that is being executed."""

    @property
    def instructions(self) -> int:
        """Instructions retired, in whole blocks."""

    @property
    def taken(self) -> int:
        """Branches taken."""

    @property
    def not_taken(self) -> int:
        """Conditional branches that fell through."""

    @property
    def unexplained(self) -> int:
        """Transitions that no instruction accounts for: someone wrote the instruction pointer."""

    @property
    def known(self) -> int:
        """Blocks in the table."""

__test__: dict[str, Any]
