"""A guest that has booted once, for all tests: each starts from its saved state."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from pylbr.embed.channel import Channel
from pylbr.embed.contention import Contention, Script
from pylbr.embed.machine import Machine
from pylbr.embed.savefile import restore, save
from pylbr.errors import UnsupportedFeature
from pylbr.linux import debian
from pylbr.linux.booted import Guest, booted
from pylbr.linux.console import Console
from pylbr.linux.session import Result, execute
from pylbr.linux.system import initramfs
from tests.linux.programs import build


@pytest.fixture(scope="session")
def kernel() -> Path:
    """Debian's kernel."""
    try:
        return debian.kernel()
    except UnsupportedFeature as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def guest(kernel) -> Guest:
    """What is booted."""
    return Guest(kernel, initramfs())


@dataclass
class Booted:
    """A saved guest, and what its console showed while it came up."""

    saved: Path
    console: str

    def run(self, command: str, files: dict[str, Path | bytes] | None = None, *,
            limit: int = 3_000_000_000,
            contention: Contention | None = None) -> tuple[Result, str, Machine]:
        """A command in a guest of its own: what came of it, its output, the machine."""
        printed, console = bytearray(), Console()
        machine = restore(self.saved, console=console, output=printed.extend,
                          contention=contention)
        console.watch(machine)
        result = execute(machine, Channel(machine), command, files or {}, limit)
        return result, printed.decode(), machine


@pytest.fixture(scope="session")
def linux(guest, tmp_path_factory) -> Booted:
    """The guest on Sapphire Rapids, as a vCPU whose host wants nothing: so it can be continued
    alone and beside others.  Processes that test side by side boot it once."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    saved, shown = folder / "linux.vm", folder / "linux.txt"
    with (folder / "linux.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not saved.exists():
            lines = bytearray()
            machine, _ = booted(
                guest, Console(lines.extend), lambda data: None, limit=2_000_000_000,
                contention=Contention(Script("lease", ())))
            shown.write_bytes(lines)
            save(machine, saved)
    return Booted(saved, shown.read_text(encoding="utf-8", errors="replace"))


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    """The program that is recorded."""
    return build("work", tmp_path_factory.mktemp("work"))
