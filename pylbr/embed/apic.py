"""The local APIC: the LVT, the PMI's entry above all, the timer, and interprocessor interrupts.

Source: SDM vol. 3, chapter 11.  The registers stay where they are: IA32_APIC_BASE takes no other
address.  The timer's bus clock is the machine's only one: an instruction.
"""

from __future__ import annotations

from collections.abc import Callable

from pylbr.errors import GeneralProtection

__all__ = ["APIC_BASE_MSR", "BASE", "NMI", "X2APIC_MSRS", "Apic"]

#: Where the registers lie in physical memory, and their MSRs in x2APIC mode.
BASE = 0xFEE00000
X2APIC_MSRS = range(0x800, 0x840)
APIC_BASE_MSR = 0x1B
NMI = 2

ID, VERSION, TPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ICR, ICR_HIGH, SELF_IPI = 0x100, 0x180, 0x200, 0x300, 0x310, 0x3F0
LVT_TIMER, LVT_PMI, LVT_ERROR = 0x320, 0x340, 0x370
INITIAL_COUNT, CURRENT_COUNT, DIVIDE = 0x380, 0x390, 0x3E0
_PERIODIC, _MODES = 1 << 17, 3 << 17
_MASKED = 1 << 16
_FIXED, _LOWEST, _NMI, _INIT, _SIPI = 0, 1, 4, 5, 6
#: Of a command: the destination is logical, asserts, level-triggered; and destination shorthands.
_LOGICAL, _ASSERT, _LEVEL = 1 << 11, 1 << 14, 1 << 15
_SELF, _ALL = 1, 2
_BROADCAST, _X2_BROADCAST = 0xFF, 0xFFFFFFFF
_FLAT, _ALL_ONES = 0xF, 0xFFFFFFFF
_READ_ONLY = frozenset({VERSION, CURRENT_COUNT, *range(ISR, ICR, 0x10)})
#: Of IA32_APIC_BASE (SDM vol. 3, 11.12.1): this is the boot processor, x2APIC mode, enabled.
_BSP, _EXTD, _EN = 1 << 8, 1 << 10, 1 << 11
#: Registers that x2APIC mode makes read-only, and those that it lacks (table 11-6).
_X2_READ_ONLY = _READ_ONLY | {ID, LDR}
_X2_ABSENT = frozenset({0x00, 0x10, 0xE0, ICR_HIGH})


class Apic:
    """One local APIC.

    Parameters
    ----------
    clock : callable
        The time, in bus clocks.
    identity : int
        APIC ID; 0 is the boot processor.

    Attributes
    ----------
    identity : int
    registers : dict of int to int
        What was written, by offset; the LVT is masked at first.
    requested, in_service : int
        IRR and ISR, a bit a vector.
    nmi : bool
        An NMI is pending.
    base : int
        IA32_APIC_BASE.
    expires : int or None
        When the timer does.
    ended : callable
        Takes the vector of an interrupt that the processor has ended.
    send : callable
        ``send(command, destination)`` delivers an interprocessor interrupt; without other
        processors it reaches this one or is lost.
    initialized, started : callable
        INIT has arrived; SIPI, with its vector.
    """

    def __init__(self, clock: Callable[[], int] = lambda: 0, identity: int = 0) -> None:
        self._clock, self.identity = clock, identity
        self.ended: Callable[[int], object] = lambda vector: None
        self.send: Callable[[int, int], object] = self._send
        self.initialized: Callable[[], object] = lambda: None
        self.started: Callable[[int], object] = lambda vector: None
        self.reset()

    def reset(self) -> None:
        """The state after power-up."""
        self.expires: int | None = None
        self.registers = {
            VERSION: 0x50014, SVR: 0xFF,
            **dict.fromkeys(range(LVT_TIMER, LVT_ERROR + 0x10, 0x10), _MASKED),
        }
        if self.identity:
            self.registers[ID] = self.identity << 24
        self.requested = self.in_service = 0
        self.nmi = False
        self.base = BASE | _EN | (0 if self.identity else _BSP)

    def write_base(self, value: int) -> None:
        """WRMSR of IA32_APIC_BASE.

        Raises
        ------
        GeneralProtection
            A change of mode that goes through none (SDM vol. 3, 11.12.5), or other bits.
        """
        bad = (value ^ self.base) & ~(_EXTD | _EN | _BSP)
        mode, old = value & (_EXTD | _EN), self.base & (_EXTD | _EN)
        if bad or mode == _EXTD or (old == _EXTD | _EN and mode == _EN) or (
                not old and mode == _EXTD | _EN):
            raise GeneralProtection("IA32_APIC_BASE", APIC_BASE_MSR, value, bad,
                                    "no such change of mode, and the address stays")
        self.base = value

    def read(self, offset: int) -> int:
        """A register, 32 bits."""
        offset &= 0xFF0
        for bank, bits in ((ISR, self.in_service), (IRR, self.requested)):
            if bank <= offset < bank + 0x80:
                return bits >> 2 * (offset - bank) & 0xFFFFFFFF
        if offset == CURRENT_COUNT:
            left = 0 if self.expires is None else max(self.expires - self._clock(), 0)
            return -(-left // self._divisor)
        return self.registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """Write a register; read-only ones stay."""
        offset &= 0xFF0
        if offset in _READ_ONLY:
            return
        self.registers[offset] = value & 0xFFFFFFFF
        if offset == EOI:
            self._end()
        elif offset == ICR:
            self.send(value, self.registers.get(ICR_HIGH, 0) >> 24)
        elif offset == SELF_IPI:
            self.request(value & 0xFF)
        elif offset == INITIAL_COUNT:
            period = (value & 0xFFFFFFFF) * self._divisor
            self.expires = self._clock() + period if period else None

    def _end(self) -> None:
        """The interrupt of the highest priority is over."""
        if self.in_service:
            vector = self.in_service.bit_length() - 1
            self.in_service &= ~(1 << vector)
            self.ended(vector)

    @property
    def _divisor(self) -> int:
        """What the bus clock is divided by: 2, 4 ... 128, 1 (figure 11-10)."""
        code = self.registers.get(DIVIDE, 0)
        return 1 << (((code & 3 | code >> 1 & 4) + 1) & 7)

    def expire(self) -> None:
        """The timer has reached 0: its interrupt, and in periodic mode another round."""
        entry = self.registers[LVT_TIMER]
        period = self.registers.get(INITIAL_COUNT, 0) * self._divisor
        if self.expires is not None and entry & _MODES == _PERIODIC and period:
            late = max(self._clock() - self.expires, 0)
            self.expires += period * (late // period + 1)  # rounds that were missed are lost
        else:
            self.expires = None
        if not entry & _MASKED:
            self.request(entry & 0xFF)

    @property
    def wakes(self) -> bool:
        """The timer runs, and its interrupt is not masked."""
        return self.expires is not None and not self.registers[LVT_TIMER] & _MASKED

    def msr(self, index: int, value: int | None) -> int:
        """An x2APIC register: RDMSR if `value` is None, else WRMSR."""
        offset = (index - X2APIC_MSRS.start) << 4
        if not self.base & _EXTD or offset in _X2_ABSENT:
            raise GeneralProtection(f"x2APIC {offset:#x}", index, value, 0,
                                    "not in x2APIC mode, or no such register")
        if value is None:
            if offset == ID:
                return self.identity
            if offset == LDR:
                return self._logical
            high = self.registers.get(ICR_HIGH, 0) if offset == ICR else 0
            return high << 32 | self.read(offset)
        if offset == ICR:
            self.registers[ICR_HIGH] = value >> 32
            self.registers[ICR] = value & 0xFFFFFFFF
            self.send(value & 0xFFFFFFFF, value >> 32)
        elif value >> 32 or offset in _X2_READ_ONLY:
            raise GeneralProtection(f"x2APIC {offset:#x}", index, value, 0, "32 bits, writable")
        else:
            self.write(offset, value)
        return 0

    @property
    def _logical(self) -> int:
        """Logical ID in x2APIC mode (SDM vol. 3, 11.12.10.2)."""
        return self.identity >> 4 << 16 | 1 << (self.identity & 15)

    def addressed(self, command: int, destination: int, sender: Apic | None = None) -> bool:
        """A command or redirection entry, sent by `sender`, is for this APIC."""
        shorthand = command >> 18 & 3 if sender else 0
        if shorthand:
            return shorthand == _ALL or (shorthand == _SELF) == (sender is self)
        wide = bool(self.base & _EXTD)
        if destination == (_X2_BROADCAST if wide else _BROADCAST):
            return True
        if not command & _LOGICAL:
            return destination == self.identity
        if wide:
            return destination >> 16 == self._logical >> 16 and bool(
                destination & self._logical & 0xFFFF)
        own = self.registers.get(LDR, 0) >> 24
        if self.registers.get(DFR, _ALL_ONES) >> 28 == _FLAT:
            return bool(own & destination)
        return own >> 4 == destination >> 4 and bool(own & destination & 0xF)

    def _send(self, command: int, destination: int) -> None:
        if self.addressed(command, destination, self):
            self.accept(command)

    def accept(self, entry: int) -> None:
        """An interrupt arrives, with vector and delivery mode as in a redirection entry."""
        mode = entry >> 8 & 7
        if mode == _NMI:
            self.nmi = True
        elif mode in (_FIXED, _LOWEST):
            self.request(entry & 0xFF)
        elif mode == _INIT and entry & (_LEVEL | _ASSERT) != _LEVEL:  # de-assertion does nothing
            self.initialized()
        elif mode == _SIPI:
            self.started(entry & 0xFF)

    def request(self, vector: int) -> None:
        """An interrupt arrives; vectors below 16 are illegal and lost."""
        if vector >= 16:
            self.requested |= 1 << vector

    def performance_monitoring_interrupt(self) -> None:
        """A PMI: delivered by its LVT entry, which masks itself (SDM vol. 3, 11.5.1)."""
        entry = self.registers[LVT_PMI]
        if not entry & _MASKED:
            self.registers[LVT_PMI] = entry | _MASKED
            self.accept(entry)

    @property
    def waiting(self) -> bool:
        """Something is pending that the priorities let through."""
        return self.nmi or self._next() is not None

    def _next(self) -> int | None:
        if not self.requested:
            return None
        vector = self.requested.bit_length() - 1
        threshold = max(self.registers.get(TPR, 0) & 0xFF,
                        self.in_service.bit_length() - 1 if self.in_service else 0)
        return vector if vector >> 4 > threshold >> 4 else None

    def acknowledge(self, interrupts_enabled: bool) -> int | None:
        """Take the vector that is to be delivered now, if any."""
        if self.nmi:
            self.nmi = False
            return NMI
        vector = self._next()
        if vector is None or not interrupts_enabled:
            return None
        self.requested &= ~(1 << vector)
        self.in_service |= 1 << vector
        return vector

    def state(self) -> dict[str, object]:
        """Everything, as JSON can hold it."""
        return {
            "registers": {str(offset): value for offset, value in self.registers.items()},
            "requested": hex(self.requested), "in_service": hex(self.in_service),
            "nmi": self.nmi, "base": self.base,
            "timer": None if self.expires is None else max(self.expires - self._clock(), 0),
        }

    def load(self, state: dict[str, object]) -> None:
        """Take over what `state` returned; ValueError or TypeError for anything else."""
        registers, nmi, timer = state["registers"], state["nmi"], state["timer"]
        if not isinstance(registers, dict) or not isinstance(nmi, bool) or not (
                timer is None or isinstance(timer, int) and 0 <= timer < 1 << 40):
            raise TypeError("no state of a local APIC")
        loaded = {int(offset): int(value) for offset, value in registers.items()}
        if any(offset & ~0xFF0 or value >> 32 for offset, value in loaded.items()):
            raise ValueError("no register of a local APIC")
        vectors = [int(str(state[name]), 16) for name in ("requested", "in_service")]
        if any(bits >> 256 for bits in vectors):
            raise ValueError("vectors above 255")
        base = int(str(state["base"]))
        if base & ~(_EXTD | _EN | _BSP) != BASE or base & (_EXTD | _EN) == _EXTD:
            raise ValueError("no value of IA32_APIC_BASE")
        self.registers |= loaded
        self.base = base
        self.expires = None if timer is None else self._clock() + timer
        self.requested, self.in_service = vectors
        self.nmi = nmi
