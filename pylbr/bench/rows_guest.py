"""Rows of the machines and the explorer: Unicorn, Linux's start, interleavings."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pylbr.arch import bits
from pylbr.bench.child import first_of, tool
from pylbr.bench.contest import Contender, Contest, Row, Setting
from pylbr.cpu import Processor
from pylbr.errors import UnsupportedFeature
from pylbr.extras import needed
from pylbr.verify import svm
from pylbr.verify.models import Configuration, explore

__all__ = ["ROWS", "linux_by_qemu", "linux_by_us"]

CODE: Final = 0x10000
#: ``1: test $1, %ecx; jz 2f; nop; 2: dec %ecx; jnz 1b``: 1.5 taken branches per round.
LOOP: Final = bytes.fromhex("f7c101000000740190ffc975f3")
_TAKEN: Final = 1.5
_RECORD_ALL: Final = 0x7F0007
_LAST: Final = b"Run /init as init process"
_MEMORY: Final = 512
_MOST: Final = 2_000_000_000


def loop_engine() -> Any:
    """A Unicorn engine with `LOOP` in it, in 64-bit mode and ring 0."""
    unicorn, reg = needed("unicorn"), needed("unicorn.x86_const")
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map(0, 0x100000)
    uc.mem_write(0x1000, struct.pack("<3Q", 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF))
    uc.reg_write(reg.UC_X86_REG_GDTR, (0, 0x1000, 0x17, 0))
    uc.reg_write(reg.UC_X86_REG_CS, 8)
    uc.reg_write(reg.UC_X86_REG_SS, 16)
    uc.mem_write(CODE, LOOP)
    return uc


def unicorn(setting: Setting) -> Contest:
    """A loop with our recorder attached, beside none and beside a hook in Python."""
    module, reg = needed("unicorn"), needed("unicorn.x86_const")
    from pylbr.embed.unicorn import attach

    rounds = 2_000_000 if setting.quick else 20_000_000
    few = rounds // 100
    ours, bare, hooked = loop_engine(), loop_engine(), loop_engine()
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(bits.IA32_LBR_CTL, _RECORD_ALL)
    attach(ours, cpu)
    seen: list[int] = [0]

    def block(uc: Any, address: int, size: int, data: object) -> None:
        seen[0] = address

    hooked.hook_add(module.UC_HOOK_BLOCK, block)

    def run(uc: Any, number: int) -> Callable[[], float]:
        def go() -> float:
            uc.reg_write(reg.UC_X86_REG_RCX, number)
            begin = time.thread_time()
            uc.emu_start(CODE, CODE + len(LOOP))
            return time.thread_time() - begin
        return go

    return Contest("taken branches", Contender(run(ours, rounds), _TAKEN * rounds), {
        "no hook": Contender(run(bare, rounds), _TAKEN * rounds),
        "a hook in Python that notes the block": Contender(run(hooked, few), _TAKEN * few)})


def explorer(setting: Setting) -> Contest:
    """States per second, of the compiled objects beside a model in plain Python."""
    configuration = Configuration("request", depth=2)

    def states_of(search: Callable[[], Any]) -> float:
        return float(search().states)

    ours, theirs = states_of(lambda: explore(configuration)), states_of(svm.search)
    return Contest("states", Contender(lambda: explore(configuration), ours), {
        "plain Python, a smaller model": Contender(svm.search, theirs)},
        clock=time.process_time)


def linux_by_us(kernel: Path, initrd: bytes, processors: int = 1) -> float:
    """CPU seconds of our machine from the kernel's first instruction to its init."""
    from pylbr.embed.machine import MIB, Ending, Machine
    from pylbr.embed.multiprocessor import Multiprocessor
    from pylbr.linux.boot import boot
    from pylbr.linux.booted import COMMAND_LINE
    from pylbr.linux.kernel import load

    shown = bytearray()

    def console(data: bytes) -> None:
        shown.extend(data)
        if data == b"\n" and _LAST in shown[-200:]:
            machine.stop(Ending("exit", 0, "there"))

    begin = time.process_time()
    machine = (Machine(memory=_MEMORY * MIB, console=console) if processors == 1 else
               Multiprocessor(processors=processors, memory=_MEMORY * MIB, console=console))
    boot(machine, load(kernel), initrd, COMMAND_LINE)
    if machine.run(_MOST).kind != "exit":
        raise UnsupportedFeature("the kernel did not reach its init")
    return time.process_time() - begin


def linux_by_qemu(path: str, kernel: Path, initrd: Path) -> float:
    """CPU seconds of qemu-system-x86_64, translating, for the same."""
    from pylbr.linux.booted import COMMAND_LINE

    with subprocess.Popen(
            [path, "-accel", "tcg", "-cpu", "max", "-m", str(_MEMORY), "-display", "none",
             "-monitor", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel,
             "-initrd", initrd, "-append", COMMAND_LINE],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        found = any(_LAST in line for line in process.stdout)
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        process.kill()
    if not found:
        raise UnsupportedFeature("QEMU's kernel did not reach its init")
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def linux(setting: Setting) -> Contest:
    """Debian's kernel to its init, beside QEMU's own translation without LBRs."""
    needed("unicorn")
    from pylbr.linux import debian
    from pylbr.linux.system import initramfs

    kernel, archive = debian.kernel(), initramfs()
    file = setting.directory / "initrd"
    file.write_bytes(archive)
    return Contest("starts", Contender(lambda: linux_by_us(kernel, archive), once=setting.quick), {
        "QEMU (TCG), without LBRs": Contender(first_of(
            lambda: tool("qemu-system-x86_64", "qemu-system-x86"),
            lambda path: lambda: linux_by_qemu(path, kernel, file)), once=setting.quick)})


ROWS: Final = (
    Row("explorer.states", "interleavings of host and guests searched", explorer),
    Row("unicorn.loop", "a loop in Unicorn, recorded", unicorn),
    Row("linux.start", "Linux from its first instruction to init, CPU time", linux),
)
