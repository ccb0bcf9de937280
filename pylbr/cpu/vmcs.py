"""A VMCS as far as LBRs meet it: plain data that the hypervisor owns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pylbr.arch.features import CpuModel
from pylbr.arch.vmx import CONTROLS, VMCS_FIELDS, allowed
from pylbr.errors import ConfigurationError

__all__ = ["BITMAP_SIZE", "Vmcs"]

#: MSR bitmaps: reads low, reads high, writes low, writes high, 1 KiB each (SDM vol. 3, 24.6.9).
BITMAP_SIZE = 4096
_HIGH = 0xC0000000


@dataclass
class Vmcs:
    """VMCS fields by name; `VMCS_FIELDS` has their encodings.

    Parameters
    ----------
    pin_controls, primary_controls, secondary_controls, exit_controls, entry_controls : int
    guest_debugctl, guest_lbr_ctl, guest_perf_global_ctrl, guest_dr7 : int
        Guest state.
    host_perf_global_ctrl : int
        Host state.
    exception_bitmap, xss_exiting_bitmap : int
    entry_interruption_info : int
        Bit 31 injects an event at entry.
    msr_bitmap : bytearray, 4096 bytes
        In force with "use MSR bitmaps"; without, every MSR access exits.
    entry_msr_load, exit_msr_store, exit_msr_load : list
        (MSR number, value) pairs; of `exit_msr_store` the exit fills in the values.
    exit_reason, exit_qualification : int
        Written by VM exits and failed entries.
    """

    pin_controls: int = 0
    primary_controls: int = 0
    secondary_controls: int = 0
    exit_controls: int = 0
    entry_controls: int = 0
    guest_debugctl: int = 0
    guest_lbr_ctl: int = 0
    guest_perf_global_ctrl: int = 0
    guest_dr7: int = 0x400
    host_perf_global_ctrl: int = 0
    exception_bitmap: int = 0
    xss_exiting_bitmap: int = 0
    entry_interruption_info: int = 0
    msr_bitmap: bytearray = field(default_factory=lambda: bytearray(BITMAP_SIZE))
    entry_msr_load: list[tuple[int, int]] = field(default_factory=list)
    exit_msr_store: list[tuple[int, int]] = field(default_factory=list)
    exit_msr_load: list[tuple[int, int]] = field(default_factory=list)
    exit_reason: int = 0
    exit_qualification: int = 0

    @classmethod
    def for_model(cls, model: CpuModel, *names: str) -> Vmcs:
        """A VMCS with every reserved-to-1 control set, and the controls called `names`.

        Raises
        ------
        ConfigurationError
            If `model` lacks one of them.
        """
        words = {word: allowed(model, word, true=True)[0]
                 for word in ("pin", "primary", "secondary", "exit", "entry")}
        for name in names:
            control = CONTROLS.get(name)
            if control is None or not control.offered(model):
                raise ConfigurationError(f"{model.name} has no VMX control {name!r}")
            words[control.word] |= control.mask
        return cls(words["pin"], words["primary"], words["secondary"], words["exit"],
                   words["entry"])

    def copy(self) -> Vmcs:
        """An independent VMCS with the same fields."""
        return replace(
            self, msr_bitmap=bytearray(self.msr_bitmap),
            entry_msr_load=list(self.entry_msr_load), exit_msr_store=list(self.exit_msr_store),
            exit_msr_load=list(self.exit_msr_load),
        )

    def has(self, name: str) -> bool:
        """The control called `name` is set."""
        control = CONTROLS[name]
        return bool(getattr(self, f"{control.word}_controls") & control.mask)

    def set(self, name: str, on: bool = True) -> None:
        """Set or clear the control called `name`."""
        control = CONTROLS[name]
        word = f"{control.word}_controls"
        value = getattr(self, word) & ~control.mask
        setattr(self, word, value | control.mask if on else value)

    def loads_host_global_ctrl(self) -> bool:
        """VM exits load IA32_PERF_GLOBAL_CTRL."""
        return self.has("load host IA32_PERF_GLOBAL_CTRL")

    def vmread(self, encoding: int) -> int:
        """VMREAD; an odd encoding is the high half of a 64-bit field."""
        name, high = self._field(encoding)
        value = getattr(self, name)
        return value >> 32 if high else value

    def vmwrite(self, encoding: int, value: int) -> None:
        """VMWRITE; an odd encoding replaces the high half of a 64-bit field."""
        name, high = self._field(encoding)
        if high:
            value = getattr(self, name) & 0xFFFFFFFF | (value & 0xFFFFFFFF) << 32
        setattr(self, name, value)

    def _field(self, encoding: int) -> tuple[str, bool]:
        high = bool(encoding & 1) and encoding >> 13 & 3 == 1
        name = VMCS_FIELDS.get(encoding & ~1 if high else encoding)
        if name is None or not isinstance(getattr(self, name), int):
            raise ConfigurationError(f"VMCS field {encoding:#x} holds no number here")
        return name, high

    # MSR bitmap

    def intercepts(self, index: int, write: bool) -> bool:
        """RDMSR or WRMSR of `index` exits."""
        if not self.has("use MSR bitmaps"):
            return True
        place = self._place(index, write)
        return place is None or bool(self.msr_bitmap[place >> 3] >> (place & 7) & 1)

    def intercept(self, index: int, *, read: bool = True, write: bool = True,
                  on: bool = True) -> None:
        """Set or clear the bits of an MSR that the bitmap covers."""
        for kind, wanted in ((False, read), (True, write)):
            place = self._place(index, kind)
            if not wanted or place is None:
                continue
            if on:
                self.msr_bitmap[place >> 3] |= 1 << (place & 7)
            else:
                self.msr_bitmap[place >> 3] &= ~(1 << (place & 7))

    @staticmethod
    def _place(index: int, write: bool) -> int | None:
        """Bit of the bitmap, None for an MSR outside of its two ranges."""
        if index < 0x2000:
            bit = index
        elif _HIGH <= index < _HIGH + 0x2000:
            bit = 0x2000 + index - _HIGH
        else:
            return None
        return bit + (0x4000 if write else 0)
