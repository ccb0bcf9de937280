"""RDMSR and WRMSR of one processor, past every VM exit."""

from __future__ import annotations

from collections.abc import Mapping

from pylbr.arch import choices
from pylbr.arch.fields import ALL_ONES
from pylbr.arch.refusals import no_such_register
from pylbr.arch.register import MsrRegister
from pylbr.cpu.msr.dispatch import Slot, known_elsewhere, slots
from pylbr.cpu.msr.values import Msrs
from pylbr.cpu.saved.state import need
from pylbr.errors import GeneralProtection, StateError

__all__ = ["MsrAccess"]

#: Accessors of the registers that `MsrState.values` contains.
_KEPT = frozenset({
    "plain", "canonical", "capabilities", "rtit", "pebs.general", "pebs.fixed"})


class MsrAccess:
    """The registers of one processor by number.

    Parameters
    ----------
    msrs : Msrs
    replaced : mapping of int to Slot
        Registers that are accessed otherwise than the model's rows specify.
    """

    def __init__(self, msrs: Msrs, replaced: Mapping[int, Slot] | None = None) -> None:
        self.msrs = msrs
        self._of_model = slots(msrs.model)
        self.slots = {**self._of_model, **replaced} if replaced else self._of_model

    def copy(self, msrs: Msrs) -> MsrAccess:
        """The access to a copy of the registers, as the model's rows specify."""
        other = object.__new__(MsrAccess)
        other.msrs, other.slots, other._of_model = msrs, self._of_model, self._of_model
        return other

    def read(self, index: int, host: bool = False) -> int:
        """RDMSR; see `Processor.rdmsr`."""
        slot = self.slots.get(index)
        if slot is None:
            return self._absent(index, None, host)
        if host and self._beyond_depth(slot.register):
            return 0
        return slot.read(self.msrs, slot.register)

    def write(self, index: int, value: int, host: bool = False) -> None:
        """WRMSR; see `Processor.wrmsr`."""
        slot = self.slots.get(index)
        if slot is None:
            self._absent(index, value, host)
            return
        if not slot.guest_writes and not host:
            raise self._read_only(slot, value)
        if value & slot.reserved:
            raise self._reserved(slot, value)
        if host and not value and self._beyond_depth(slot.register):
            return
        slot.write(self.msrs, slot.register, value)

    def set(self, index: int, value: int) -> None:
        """Write a value that has been checked."""
        slot = self.slots[index]
        slot.write(self.msrs, slot.register, value)

    def load(self, values: tuple[tuple[int, int], ...]) -> None:
        """Take over `MsrState.values`.

        Raises
        ------
        StateError
            For a register that the model does not keep so, or a value that it cannot hold.
        """
        for index, value in values:
            slot = self.slots.get(index)
            need(slot is not None and slot.register.row.accessor in _KEPT,
                 f"values: {self.msrs.model.name} keeps no MSR {index:#x}")
            try:
                self.write(index, value, host=True)
            except GeneralProtection as error:
                raise StateError(f"values: {error}") from None

    # VMX MSR lists

    def slot_of_list(self, index: int, value: int) -> Slot:
        """Where an MSR of a load list goes, as WRMSR.

        Raises
        ------
        GeneralProtection
            The rule that it breaks.
        """
        slot = self.slots.get(index)
        if slot is None:
            raise self._no_such(index, value)
        if value & slot.reserved:
            raise self._reserved(slot, value)
        if not slot.guest_writes:
            raise self._read_only(slot, value)
        return slot

    def store(self, index: int) -> int:
        """The value for a store list."""
        slot = self.slots.get(index)
        if slot is None:
            raise self._no_such(index, None)
        return slot.read(self.msrs, slot.register)

    # Refusals

    def _beyond_depth(self, register: MsrRegister) -> bool:
        """A record that the present depth does not have."""
        return (register.row.accessor in ("lbr.from", "lbr.to", "lbr.info")
                and register.n >= self.msrs.lbr.depth)

    @staticmethod
    def _reserved(slot: Slot, value: int) -> GeneralProtection:
        return GeneralProtection(
            slot.register.name, slot.register.index, value, value & slot.reserved & ALL_ONES,
            "reserved bits must be 0" if 0 <= value <= ALL_ONES else "a value has 64 bits")

    @staticmethod
    def _read_only(slot: Slot, value: int) -> GeneralProtection:
        return GeneralProtection(slot.register.name, slot.register.index, value, 0,
                                 "the register is read-only")

    def _absent(self, index: int, value: int | None, host: bool) -> int:
        if host and choices.HOST_ABSENT_READS_ZERO and not value and known_elsewhere(index):
            return 0
        raise self._no_such(index, value)

    def _no_such(self, index: int, value: int | None) -> GeneralProtection:
        return GeneralProtection(f"MSR {index:#x}", index, value, 0,
                                 no_such_register(self.msrs.model))
