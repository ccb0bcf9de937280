"""RDMSR and WRMSR."""

from __future__ import annotations

from pylbr.arch import choices
from pylbr.arch.fields import ALL_ONES
from pylbr.arch.register import MsrRegister
from pylbr.arch.vmx import ExitReason
from pylbr.cpu.base import Base
from pylbr.cpu.dispatch import Slot, known_elsewhere
from pylbr.cpu.errors import VmExit
from pylbr.errors import GeneralProtection

__all__ = ["MsrAccess"]


class MsrAccess(Base):
    """The MSR path of `Processor`."""

    def rdmsr(self, index: int, host: bool = False) -> int:
        """RDMSR; never changes anything.

        Parameters
        ----------
        index : int
            ECX.
        host : bool
            Initiated by the host (KVM_GET_MSRS): a register that some model has but this
            one lacks reads 0.

        Raises
        ------
        GeneralProtection
            No such register, or a record beyond the depth.
        VmExit
            The MSR bitmap in force says so.
        """
        slot = self._slots.get(index)
        if host or slot is None or self.vmcs is not None:
            return self._rdmsr_slowly(index, host)
        return slot.read(self, slot.register)

    def _rdmsr_slowly(self, index: int, host: bool) -> int:
        guest = self.guest
        if not host and guest is not None and guest.intercepts(index, write=False):
            raise VmExit(ExitReason.RDMSR, index=index)
        slot = self._slots.get(index)
        if slot is None:
            return self._absent(index, None, host)
        if host and self._beyond_depth(slot.register):
            return 0
        return slot.read(self, slot.register)

    def wrmsr(self, index: int, value: int, host: bool = False) -> None:
        """WRMSR.

        Parameters
        ----------
        index, value : int
            ECX and EDX:EAX.
        host : bool
            Initiated by the host (KVM_SET_MSRS): read-only registers may be written where
            that makes sense, absent ones take 0.

        Raises
        ------
        GeneralProtection
            With register, value, offending bits and rule; nothing has changed.
        VmExit
            The MSR bitmap in force says so.
        """
        slot = self._slots.get(index)
        if host or slot is None or self.vmcs is not None:
            return self._wrmsr_slowly(index, value, host)
        if not slot.guest_writes:
            raise self._read_only(slot, value)
        if value & slot.reserved:
            raise self._reserved(slot, value)
        return slot.write(self, slot.register, value)

    def _wrmsr_slowly(self, index: int, value: int, host: bool) -> None:
        guest = self.guest
        if not host and guest is not None and guest.intercepts(index, write=True):
            raise VmExit(ExitReason.WRMSR, index=index, value=value)
        slot = self._slots.get(index)
        if slot is None:
            self._absent(index, value, host)
            return
        if not host and not slot.guest_writes:
            raise self._read_only(slot, value)
        if value & slot.reserved:
            raise self._reserved(slot, value)
        if host and not value and self._beyond_depth(slot.register):
            return
        slot.write(self, slot.register, value)

    def _beyond_depth(self, register: MsrRegister) -> bool:
        """A record that the present depth does not have."""
        return (register.row.home in ("lbr.from", "lbr.to", "lbr.info")
                and register.n >= self.lbr.depth)

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
                                 f"{self.model.name} has no such register")
