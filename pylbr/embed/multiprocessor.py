"""A machine with several processors: an engine each over one memory, in turns of one thread.

The clock is common and passes while any of them runs: the time-stamp counters never differ.  A turn
ends after `QUANTUM` instructions, at HLT, and when the processor interrupts another one.  So runs
repeat to the bit.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from functools import partial

import numpy as np
from unicorn import UC_PROT_ALL
from unicorn import x86_const as reg

from pylbr.arch import CpuModel
from pylbr.embed.contention import Contention
from pylbr.embed.machine import MIB, Ending, Machine
from pylbr.embed.platform import FREQUENCY
from pylbr.embed.shared_code import SharedCode
from pylbr.embed.start import real_mode
from pylbr.errors import ConfigurationError

__all__ = ["MOST_PROCESSORS", "QUANTUM", "Multiprocessor"]

MOST_PROCESSORS = 4
#: Instructions of a turn while another processor could run, and while none could.
QUANTUM, ALONE = 50_000, 1_000_000
_IF = 1 << 9
_LOWEST_PRIORITY = 1


class _Sharing(Machine):
    """A processor that takes turns.

    Attributes
    ----------
    asleep, waiting : bool
        It executes HLT; it waits for SIPI.
    shared_code : SharedCode
    """

    asleep = waiting = _over = False
    _turn_end: int | None = None
    shared_code: SharedCode

    def _deadlines(self) -> list[int]:
        end = self._turn_end
        return super()._deadlines() + ([] if end is None else [end - self.stamp.idle])

    def take_turn(self, end: int) -> None:
        """Run until the clock shows `end`, or something else ends the turn."""
        self._turn_end, self._over = end, False
        self._arm()
        if self.asleep:
            rip, flags = (self.uc.reg_read(r) for r in (
                reg.UC_X86_REG_RIP, reg.UC_X86_REG_RFLAGS))
            self.asleep = not self._take_interrupt(rip, bool(flags & _IF))
            if self.asleep:
                return
        elif self.apic.waiting:
            self.link.ask()
        self._go()

    def end_turn(self) -> None:
        """Let the others run at the next block."""
        self._turn_end = self.clock
        self.link.ask()

    def _boundary(self, address: int) -> bool:
        if super()._boundary(address):
            return True
        if self._turn_end is None or self.clock < self._turn_end:
            return False
        internal = self.link.engine.internal_state()
        if internal.inhibited or internal.bits == 16:  # where RIP is not the linear address
            return False
        self._over = True
        self.uc.emu_stop()
        return True

    def _halted(self) -> None:
        self.asleep = self._ending is None and not self._over

    @property
    def ready(self) -> bool:
        """It has something to execute."""
        if self.waiting or not self.asleep:
            return not self.waiting
        if self.apic.expires is not None and self.clock >= self.apic.expires:
            self.apic.expire()
        return self.apic.nmi or self.apic.waiting and bool(
            self.uc.reg_read(reg.UC_X86_REG_RFLAGS) & _IF)


class _Further(_Sharing):
    """A processor besides the first, whose devices it uses."""

    def __init__(self, first: Multiprocessor, identity: int, model: CpuModel | str) -> None:
        self._first, self.identity, self.waiting = first, identity, True
        self.processors = first.processors
        self._start: int | None = None
        beside = first.contention
        super().__init__(model, memory=first.memory,
                         contention=Contention(beside.script) if beside else None)
        self.ioapic, self.uart, self.uart2 = first.ioapic, first.uart, first.uart2
        self.firmware, self.cmos, self.ports = first.firmware, first.cmos, first.ports
        self.apic.initialized, self.apic.started = self._initialize, self._started

    def _map_memory(self) -> None:
        self._first.share(self)

    @property
    def _ending(self) -> Ending | None:
        return self._first._ending

    @_ending.setter
    def _ending(self, ending: Ending | None) -> None:
        self._first._ending = ending

    @property
    def clock(self) -> int:
        return self._first.clock

    def stop(self, ending: Ending) -> None:
        self._first.stop(ending)

    def _initialize(self) -> None:
        self.waiting, self._start = True, None

    def _started(self, vector: int) -> None:
        if self.waiting:
            self.waiting, self._start = False, vector

    def take_turn(self, end: int) -> None:
        if self._start is not None:
            vector, self._start = self._start, None
            self.asleep = False
            self.apic.reset()
            self.processor.init()
            real_mode(self.uc, self.memory, vector)
            self.link.recorder.settle(vector << 12)  # RIP is relative to it
            self.link.settle()
            self.link.recorder.cpl = 0
        super().take_turn(end)


class Multiprocessor(_Sharing):
    """A machine with several processors; as a `Machine`, it is the first of them.

    Parameters
    ----------
    model : CpuModel or str
    processors : int
        2 to `MOST_PROCESSORS`.
    memory, console, output, seed
        As of `Machine`.
    contention : Contention, optional
        The host's side of the first; the others have one each, by the same script: every
        processor is a vCPU on a processor of its own.

    Attributes
    ----------
    cpus : list of Machine
        Each with its own engine, processor, link and APIC.
    turns : int
        How often another processor than before has run.
    """

    def __init__(
        self, model: CpuModel | str = "sapphire-rapids", *, processors: int = 2,
        memory: int = 64 * MIB, console: Callable[[bytes], object] | None = None,
        output: Callable[[bytes], object] | None = None,
        contention: Contention | None = None, seed: int | None = None,
    ) -> None:
        if not 2 <= processors <= MOST_PROCESSORS:
            raise ConfigurationError(f"processors: must be 2 to {MOST_PROCESSORS}")
        self.processors, self.turns, self._current = processors, 0, 0
        self.cpus: list[_Sharing] = [self]
        self._shared = np.empty((0, 512), np.uint64)
        super().__init__(model, memory=memory, console=console, output=output,
                         contention=contention, seed=seed)
        self.cpus += [_Further(self, n, model) for n in range(1, processors)]
        for cpu in self.cpus:
            cpu.shared_code = SharedCode(cpu.link.engine, cpu.code, self._shared)
            cpu.apic.send = partial(self._send, cpu)
            cpu.apic.ended = self.ioapic.end

    def _map_memory(self) -> None:
        self._shared = np.frombuffer(mmap.mmap(-1, self.memory), np.uint64).reshape(-1, 512)
        self.share(self)

    def share(self, cpu: Machine) -> None:
        """Map the memory into the engine of `cpu`."""
        cpu.uc.mem_map_ptr(0, self.memory, UC_PROT_ALL, self._shared.ctypes.data)

    @property
    def running(self) -> _Sharing:
        return self.cpus[self._current]

    @property
    def clock(self) -> int:
        return self.running.stamp.clock()

    def stop(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
        self.running.uc.emu_stop()

    def stop_soon(self, ending: Ending) -> None:
        self.running._due = ending
        self.running.link.ask()

    # Interrupts

    def _send(self, sender: _Sharing, command: int, destination: int) -> None:
        targets = [cpu for cpu in self.cpus
                   if cpu.apic.addressed(command, destination, sender.apic)]
        self._accept(targets, command)
        if any(cpu is not sender for cpu in targets):
            sender.end_turn()

    def _pin(self, entry: int, destination: int) -> None:
        self._accept([cpu for cpu in self.cpus if cpu.apic.addressed(entry, destination)], entry)
        if self.running.apic.waiting:
            self.running.link.ask()

    def _accept(self, targets: list[_Sharing], command: int) -> None:
        for cpu in targets[:1] if command >> 8 & 7 == _LOWEST_PRIORITY else targets:
            cpu.apic.accept(command)

    # Turns

    def run(self, limit: int | None = None) -> Ending:
        self._ending = None
        self._limit = None if limit is None else self.clock + limit
        while self._ending is None:
            ready = [cpu for cpu in self.cpus if cpu.ready]
            if self._limit is not None and self.clock >= self._limit:
                self._ending = Ending(
                    "limit", 0, f"no end after {self._instructions} instructions")
            elif ready:
                self._turn(min(ready, key=self._distance), len(ready) > 1)
            else:
                self._sleep()
        for cpu in self.cpus:
            cpu.link.settle()
        return self._ending

    @property
    def _instructions(self) -> int:
        return sum(cpu.link.recorder.instructions for cpu in self.cpus)

    def _distance(self, cpu: _Sharing) -> int:
        """From the one that runs on to `cpu`; the one itself comes last."""
        return (cpu.identity - self._current - 1) % self.processors

    def _turn(self, cpu: _Sharing, others: bool) -> None:
        clock = self.clock
        if cpu is not self.running:
            self.running.shared_code.leave()
            cpu.shared_code.enter()
            cpu.stamp.idle = clock - cpu.link.recorder.instructions
            self._current = cpu.identity
            self.turns += 1
        if cpu is not self and self.input is not None and (data := self.input(0)):
            self.uart.receive(data)
        timers = [other.apic.expires for other in self.cpus
                  if other is not cpu and other.asleep and other.apic.wakes]
        end = min([clock + (QUANTUM if others else ALONE),
                   *(at for at in (*timers, self._limit) if at is not None)])
        cpu.take_turn(end)

    def _sleep(self) -> None:
        """Let the time pass until a timer wakes a processor."""
        timers = [cpu.apic.expires for cpu in self.cpus
                  if cpu.asleep and not cpu.waiting and cpu.apic.wakes
                  and cpu.uc.reg_read(reg.UC_X86_REG_RFLAGS) & _IF]
        at = min((at for at in timers if at is not None), default=None)
        if at is None:
            rip = self.uc.reg_read(reg.UC_X86_REG_RIP)
            self._ending = Ending(
                "halt", 0, f"halted at {rip:#x} with nothing that could wake a processor")
            return
        if self.input is not None and (
                data := self.input(max(at - self.clock, 0) / FREQUENCY)):
            self.uart.receive(data)
            if any(cpu.ready for cpu in self.cpus):
                return
        self.running.stamp.idle += max(at - self.clock, 0)
