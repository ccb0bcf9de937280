"""A bare-metal x86 machine with LBRs: one processor, memory, serial console, local APIC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from unicorn import UC_ARCH_X86, UC_HOOK_INSN, UC_HOOK_MEM_UNMAPPED, UC_MODE_64, Uc, UcError
from unicorn import x86_const as reg

from lbrcore import BranchClass
from pylbr.arch import CpuModel, architectural
from pylbr.arch import model as named_model
from pylbr.cpu import Processor, ProcessorState
from pylbr.embed import idt
from pylbr.embed.apic import APIC_BASE_MSR, BASE, X2APIC_MSRS, Apic
from pylbr.embed.cmos import CMOS, Cmos
from pylbr.embed.contention import Contention
from pylbr.embed.host_memory import host_memory
from pylbr.embed.image import Image
from pylbr.embed.ioapic import IOAPIC_BASE, IoApic
from pylbr.embed.platform import FREQUENCY, Platform
from pylbr.embed.ports import FIRMWARE_CONFIG, FirmwareConfig, Ports
from pylbr.embed.start import prepare
from pylbr.embed.time_on import time_on
from pylbr.embed.timestamp import TimeStamp
from pylbr.embed.uart import COM1, COM2, Uart
from pylbr.embed.unicorn import Link
from pylbr.embed.vcpu import VirtualProcessor
from pylbr.errors import ConfigurationError

__all__ = ["Ending", "Fault", "Machine", "executable_model"]

MIB = 1 << 20
DEBUG_CONSOLE, EXIT_PORT, POWER_PORT = 0xE9, 0xF4, 0x604
#: Of a machine under contention: the guest chooses a point, and reads the answer.
HOST_PORT = 0xF5
_EFER, _STAR, _LSTAR, _FMASK = 0xC0000080, 0xC0000081, 0xC0000082, 0xC0000084
_SCE, _IF = 1, 1 << 9
#: Pins of the serial ports.
_COM1_PIN, _COM2_PIN = 4, 3
NMI, UNDEFINED = 2, 6
UNKNOWN_MODEL = "architectural"


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes
    ----------
    kind : {"exit", "halt", "limit", "shutdown", "stuck", "pause", "ready", "panic"}
        The guest wrote to the exit port; it executed HLT and nothing can wake it; the limit
        was reached; a triple fault; it did something from which this machine cannot continue; the
        host asked for a pause; the guest waits for work (`pylbr.embed.channel`); its kernel
        reported a panic.
    code : int
        Of "exit": what was written.
    reason : str
        One line.
    """

    kind: str
    code: int
    reason: str


@dataclass(frozen=True)
class Fault:
    """An exception of the supervisor's code.

    Attributes
    ----------
    vector, rip : int
    records : ndarray
        The branch records at that time, newest first.
    """

    vector: int
    rip: int
    records: npt.NDArray[np.void]


def executable_model(model: CpuModel | str) -> CpuModel:
    """`model` without what this machine lacks: AVX, TSX, SGX, PT, VMX and the debug store.

    "architectural" is Sapphire Rapids under a family and model number that is in no table.
    """
    if model == UNKNOWN_MODEL:
        model = architectural(UNKNOWN_MODEL, number=0xEE)
    model = named_model(model) if isinstance(model, str) else model
    return replace(
        model, xcr0=model.xcr0 & 3, xss=model.xss & 1 << 15, hle=False, rtm=False, sgx=False,
        pt=False, pt_excludes_lbr=False, vmx=False, xfd=False, debug_store=False,
        pmu=replace(model.pmu, pebs_format=0, pebs_baseline=False),
    )


class Machine:
    """One machine.

    Parameters
    ----------
    model : CpuModel, str or ProcessorState
        Processor; `executable_model` of it is built.  A state is restored as it is.
    memory : int
        Bytes, from 0; a multiple of 2 MiB.
    console, output : callable, optional
        Take what the guest writes to its first and its second serial port, bytes.
    trace : callable, optional
        Takes all branches, arrays of BRANCH_DTYPE.
    contention : Contention, optional
        A host that also uses the LBRs; the guest's processor is a vCPU then.
    seed : int, optional
        How long the machine has been on when its guest starts (`pylbr.embed.time_on`), which the
        time-stamp counter and the CMOS clock show; not given: no time.

    Attributes
    ----------
    uc : Uc
    processor : Processor
    link : Link
    apic : Apic
    ioapic : IoApic
    uart, uart2 : Uart
    cmos : Cmos
    firmware : FirmwareConfig
    ports : Ports
        Where further devices are attached.
    stamp : TimeStamp
    platform : Platform
    image : Image or None
    pause_at : int or None
        `run` returns when so many instructions were retired in all; call it again to continue.
    input : callable or None
        ``input(seconds)`` returns bytes for the first serial port; it may wait so long for them,
        as the guest sleeps meanwhile.
    last_exception : tuple or None
        Vector and RIP of the exception that was delivered last.
    fault : Fault or None
        Of the exceptions at privilege level 0, the last.
    """

    #: APIC ID, and how many processors the machine has.
    identity, processors = 0, 1

    @host_memory()
    def __init__(
        self, model: CpuModel | ProcessorState | str = "sapphire-rapids", *, memory: int = 64 * MIB,
        console: Callable[[bytes], object] | None = None,
        output: Callable[[bytes], object] | None = None,
        trace: Callable[[npt.NDArray[np.void]], object] | None = None,
        contention: Contention | None = None, seed: int | None = None,
    ) -> None:
        if memory % (2 * MIB) or not 4 * MIB <= memory <= 2048 * MIB:
            raise ConfigurationError("memory: must be 4 to 2048 MiB and even")
        self.memory, self._console = memory, console or (lambda data: None)
        self._output = output or (lambda data: None)
        self.cpus: Sequence[Machine] = [self]
        self.uc = uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.ctl_set_cpu_model(reg.UC_CPU_X86_ICELAKE_SERVER)
        self._map_memory()
        uc.ctl_exits_enabled(True)  # and none set: an address to stop at would be translated
        self.apic, self.ioapic = Apic(lambda: self.clock, self.identity), IoApic(self._pin)
        self.apic.ended = self.ioapic.end
        self.uart = Uart(self._console, lambda level: self.ioapic.line(_COM1_PIN, level))
        self.uart2 = Uart(self._output, lambda level: self.ioapic.line(_COM2_PIN, level))
        self.firmware = FirmwareConfig(memory, self.processors)
        self.cmos = Cmos(lambda: self.clock / FREQUENCY)
        self.image: Image | None = None
        uc.mmio_map(BASE, 0x1000, self._apic_read, None, self._apic_write, None)
        uc.mmio_map(IOAPIC_BASE, 0x1000, self._ioapic_read, None, self._ioapic_write, None)
        self.contention = contention
        self.processor = self._processor(model)
        self._ending: Ending | None = None
        self._due: Ending | None = None
        self._limit: int | None = None
        self._missing: int | None = None
        self.pause_at: int | None = None
        self.input: Callable[[float], bytes] | None = None
        self.last_exception: tuple[int, int] | None = None
        self.fault: Fault | None = None
        self.link = Link(uc, self.processor, self._deliver, self._other_msr, trace)
        self.link.boundary = self._boundary
        self.stamp = TimeStamp(self.link.recorder, self.link.engine.register_write, (
            reg.UC_X86_REG_RIP, reg.UC_X86_REG_RAX, reg.UC_X86_REG_RDX))
        self.stamp.idle = 0 if seed is None else time_on(seed)
        self.platform = Platform(self.stamp, self.processor.cpuid(0)[0], self.identity,
                                 self.processors)
        self.link.own_msrs |= {APIC_BASE_MSR, *self.platform.msrs}
        self.link.surroundings = self.platform.cpuid
        for instruction in (reg.UC_X86_INS_RDTSC, reg.UC_X86_INS_RDTSCP):
            self.link.engine.hook(UC_HOOK_INSN, *self.stamp.hook, instruction=instruction)
        self.ports = self._attached()
        uc.hook_add(UC_HOOK_INSN, self._in, None, 1, 0, reg.UC_X86_INS_IN)
        uc.hook_add(UC_HOOK_INSN, self._out, None, 1, 0, reg.UC_X86_INS_OUT)
        uc.hook_add(UC_HOOK_INSN, self._syscall, None, 1, 0, reg.UC_X86_INS_SYSCALL)
        self.code = self.link.engine.code_pages(self.memory)
        # Not for the memory, where stores would take the slow way.
        uc.hook_add(UC_HOOK_MEM_UNMAPPED, self._nothing_there, None, self.memory, 2 ** 64 - 1)

    def _map_memory(self) -> None:
        self.uc.mem_map(0, self.memory)

    def _attached(self) -> Ports:
        ports = Ports()
        ports.attach(COM1, self.uart.read, lambda n, value: self.uart.write(n, value & 0xFF))
        ports.attach(COM2, self.uart2.read, lambda n, value: self.uart2.write(n, value & 0xFF))
        ports.attach(CMOS, self.cmos.read, lambda n, value: self.cmos.write(n, value & 0xFF))
        ports.attach(FIRMWARE_CONFIG[:1], None,
                     lambda n, value: self.firmware.select(value & 0xFFFF))
        ports.attach(FIRMWARE_CONFIG[1:], lambda n: self.firmware.next(), None)
        ports.attach(range(DEBUG_CONSOLE, DEBUG_CONSOLE + 1), None,
                     lambda n, value: self._console(bytes([value & 0xFF])))
        ports.attach(range(EXIT_PORT, EXIT_PORT + 1), None, lambda n, value: self.stop(
            Ending("exit", value, f"exit code {value}")))
        ports.attach(range(POWER_PORT, POWER_PORT + 1), None, lambda n, value: self.stop(
            Ending("exit", 0, "switched off")))
        if self.contention:
            ports.attach(range(HOST_PORT, HOST_PORT + 1), lambda n: self.running._host_flags(),
                         lambda n, value: self.running._tell_host(value))
        return ports

    def _host_flags(self) -> int:
        assert self.contention is not None
        return self.contention.flags()

    def _tell_host(self, value: int) -> None:
        assert self.contention is not None
        self.link.sync()
        self.contention.written(value & 0xFF)
        self.link.arm()

    def _processor(self, model: CpuModel | ProcessorState | str) -> Processor:
        if self.contention is None:
            if isinstance(model, ProcessorState):
                return Processor.from_state(model, self)
            return Processor(executable_model(model), self)
        if isinstance(model, ProcessorState):
            vcpu = VirtualProcessor.resume(
                model, self, self.contention.policy, self.contention.lost)
        else:
            vcpu = VirtualProcessor(executable_model(model), self, self.contention.policy)
        self.contention.take(vcpu)
        return vcpu

    def load(
        self, image: Image, arguments: str = "", modules: Sequence[bytes] = ()
    ) -> None:
        """Put an image into memory and the processor at its start.

        Parameters
        ----------
        arguments : str
            After the image's name in the command line that multiboot gives it.
        modules : sequence of bytes
            Boot modules, at the end of the memory.

        Raises
        ------
        ImageError
            It does not fit, or cannot be given arguments or modules.
        """
        self.image = image
        prepare(self.uc, image, self.memory, arguments, modules)
        self.link.settle()
        self.uc.reg_write(reg.UC_X86_REG_RIP, image.entry)
        self.link.recorder.cpl = self.link.engine.internal_state().cpl

    # Running

    @property
    def running(self) -> Machine:
        """The processor that executes."""
        return self

    @property
    def clock(self) -> int:
        """The time: instructions, and what was slept through in HLT."""
        return self.stamp.clock()

    def run(self, limit: int | None = None) -> Ending:
        """Run until the guest ends, or for `limit` more instructions, time asleep included."""
        self._ending = None
        self._limit = None if limit is None else self.clock + limit
        self._arm()
        while self._ending is None:
            self._go()
        self.link.settle()
        return self._ending

    def _go(self) -> None:
        """Run until the engine stops, and see why it did."""
        try:
            with host_memory():
                rip = self.uc.reg_read(reg.UC_X86_REG_RIP)
                self.link.engine.enter(self.code, rip)
                self.uc.emu_start(rip, 0)
                self.link.settle()
        except UcError as error:
            self._stuck(error)
        except idt.TripleFault as fault:
            self._ending = Ending("shutdown", 0, str(fault))
        except idt.DeliveryError as error:
            self._ending = Ending("stuck", 0, str(error))
        else:
            self._halted()

    def _stuck(self, error: UcError) -> None:
        rip = self.uc.reg_read(reg.UC_X86_REG_RIP)
        what = str(error)
        if self._missing is not None:
            what = f"access to {self._missing:#x}, where nothing is"
        self._ending = Ending("stuck", 0, f"{what}, at {rip:#x}")

    def _halted(self) -> None:
        """The engine stopped without an ending: HLT."""
        if self._ending is not None:
            return
        enabled = bool(self.uc.reg_read(reg.UC_X86_REG_RFLAGS) & _IF)
        rip = self.uc.reg_read(reg.UC_X86_REG_RIP)
        if enabled and not self.apic.waiting and self.apic.wakes:
            assert self.apic.expires is not None
            if self.input is not None:
                seconds = max(self.apic.expires - self.clock, 0) / FREQUENCY
                if data := self.input(seconds):
                    self.uart.receive(data)
            self.stamp.idle += max(self.apic.expires - self.clock, 0)
            if self._limit is not None and self.clock >= self._limit:
                count = self.link.recorder.instructions
                self._ending = Ending("limit", 0, f"no end after {count} instructions")
                return
            self.apic.expire()
            self._arm()
        if not self._take_interrupt(rip, enabled):
            self._ending = Ending(
                "halt", 0, f"halted at {rip:#x} with nothing that could wake it")

    def _deadlines(self) -> list[int]:
        """When `_boundary` is to be called, in instructions retired in all."""
        host = self.contention.next if self.contention else None
        deadlines = [at for at in (self.pause_at, host) if at is not None]
        return deadlines + [at - self.stamp.idle for at in (self._limit, self.apic.expires)
                            if at is not None]

    def _arm(self) -> None:
        self.link.deadline = min(self._deadlines(), default=None)
        self.link.arm()

    def stop(self, ending: Ending) -> None:
        """End the run with `ending`, unless it has ended."""
        if self._ending is None:  # what came first: the engine may run on to the block's end
            self._ending = ending
        self.uc.emu_stop()

    def interrupt(self, ending: Ending) -> None:
        """End the run with `ending`; from another thread, at any time."""
        self.stop(ending)

    def stop_soon(self, ending: Ending) -> None:
        """End the run with `ending` before the next block, so that it can go on from there."""
        self._due = ending
        self.link.ask()

    def _boundary(self, address: int) -> bool:
        """A block is about to run and something is due: interrupts, a pause, the limit."""
        count = self.link.recorder.instructions
        if self._ending is not None:
            self.uc.emu_stop()
            return True
        if self._due is not None:
            due, self._due = self._due, None
            self.stop(due)
            return True
        if self._limit is not None and self.clock >= self._limit:
            self.stop(Ending("limit", 0, f"no end after {count} instructions"))
            return True
        if self.pause_at is not None and count >= self.pause_at and (
                not self.link.engine.internal_state().inhibited):
            self.pause_at = None
            self.stop(Ending("pause", 0, f"paused after {count} instructions"))
            return True
        if self.contention and self.contention.next is not None and (
                count >= self.contention.next):
            self.contention.arrive(count)
            self._arm()
        if self.apic.expires is not None and self.clock >= self.apic.expires:
            self.apic.expire()
            self._arm()
        if self.input is not None and (data := self.input(0)):
            self.uart.receive(data)
        if self.apic.waiting:
            internal = self.link.engine.internal_state()
            enabled = bool(self.uc.reg_read(reg.UC_X86_REG_RFLAGS) & _IF)
            if not internal.inhibited and self._take_interrupt(address, enabled):
                return True
            self.link.ask(0 if self.apic.nmi or enabled else _IF)
        return False

    def _take_interrupt(self, rip: int, enabled: bool) -> bool:
        vector = self.apic.acknowledge(enabled)
        if vector is None:
            return False
        self.link.recorder.interrupted(rip, BranchClass.INTERRUPT)
        self.link.deliver(vector, None, None, False)
        return True

    # What the processor reports

    def pmi(self, cpu: Processor) -> bool:
        """A performance-monitoring interrupt."""
        self.apic.performance_monitoring_interrupt()
        if self.apic.waiting:
            self.link.ask()
        return False

    def pebs(self, cpu: Processor, counter: int, record: bytes) -> int | None:
        """PEBS records are dropped: this machine has no debug store."""
        return None

    # What the guest's instructions come to

    def _deliver(
        self, vector: int, error_code: int | None, address: int | None, software: bool
    ) -> None:
        rip = self.uc.reg_read(reg.UC_X86_REG_RIP)
        if not software and vector < 32 and vector != NMI:
            self.last_exception = vector, rip
            if self.link.recorder.cpl == 0:
                self.link.sync()
                self.fault = Fault(vector, rip, self.processor.records())
        idt.deliver(self.link.engine, vector, error_code, address=address, software=software)

    def _syscall(self, uc: Uc, data: Any) -> None:
        """SYSCALL (SDM vol. 2): the engine only steps over it, by its two bytes."""
        rip, flags = (uc.reg_read(r) for r in (reg.UC_X86_REG_RIP, reg.UC_X86_REG_RFLAGS))
        if not uc.msr_read(_EFER) & _SCE:
            self.link.recorder.interrupted(rip, BranchClass.EXCEPTION)
            self.link.deliver(UNDEFINED, None, None, False)
            uc.reg_write(reg.UC_X86_REG_RIP, uc.reg_read(reg.UC_X86_REG_RIP) - 2)
            return
        selector = uc.msr_read(_STAR) >> 32 & 0xFFFC
        self.link.engine.set_cpl(0)
        uc.reg_write(reg.UC_X86_REG_SS, selector + 8)
        uc.reg_write(reg.UC_X86_REG_CS, selector)
        uc.reg_write(reg.UC_X86_REG_RCX, rip + 2)
        uc.reg_write(reg.UC_X86_REG_R11, flags)
        uc.reg_write(reg.UC_X86_REG_RFLAGS, flags & ~uc.msr_read(_FMASK) | 2)
        uc.reg_write(reg.UC_X86_REG_RIP, uc.msr_read(_LSTAR) - 2)

    def _other_msr(self, index: int, value: int | None) -> int:
        if index in X2APIC_MSRS:
            expires = self.apic.expires
            result = self.apic.msr(index, value)
            self._apic_changed(expires)
            return result
        if index == APIC_BASE_MSR:
            if value is not None:
                self.apic.write_base(value)
            return self.apic.base
        return self.platform.msr(index, value)

    def _apic_read(self, uc: Uc, offset: int, size: int, data: Any) -> int:
        return self.apic.read(offset) >> 8 * (offset & 3)

    def _apic_write(self, uc: Uc, offset: int, size: int, value: int, data: Any) -> None:
        expires = self.apic.expires
        self.apic.write(offset, value)
        self._apic_changed(expires)

    def _apic_changed(self, expired: int | None) -> None:
        """A register of the APIC was written; the timer was set to `expired` before."""
        if self.apic.expires != expired:
            self.link.sync()
            self._arm()
        if self.apic.waiting:
            self.link.ask()

    def _ioapic_read(self, uc: Uc, offset: int, size: int, data: Any) -> int:
        return self.ioapic.read(offset)

    def _ioapic_write(self, uc: Uc, offset: int, size: int, value: int, data: Any) -> None:
        self.ioapic.write(offset, value)

    def _in(self, uc: Uc, port: int, size: int, data: Any) -> int:
        return self.ports.read(port, size)

    def _out(self, uc: Uc, port: int, size: int, value: int, data: Any) -> None:
        self.ports.write(port, value)

    def _pin(self, entry: int, destination: int) -> None:
        """A pin of the I/O APIC interrupts; there is one processor, whatever the destination."""
        self.apic.accept(entry)
        if self.apic.waiting:
            self.link.ask()

    def _nothing_there(
        self, uc: Uc, access: int, address: int, size: int, value: int, data: Any
    ) -> bool:
        self._missing = address
        return False

