"""Guests on the machine: that they run, go on after save and restore, and share with a host."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from pylbr.arbitration import Policy, make_policy
from pylbr.embed.contention import Act, Contention, Point, Script, read_script
from pylbr.embed.image import load
from pylbr.embed.machine import MIB, Machine, executable_model
from pylbr.embed.savefile import restore, save
from pylbr.selftest.guest_images import build
from pylbr.selftest.ktap import Case, Skip

__all__ = ["BUSY", "CHOSEN", "LEGACY_HOST", "contention_cases", "guest_cases", "saved_cases"]

_LIMIT = 2_000_000_000
_ARCH = (("lbr_basic",), ("lbr_callstack",), ("lbr_pmi",), ("lbr_rings",), ("lbr_xsave",))
_LEGACY = (("lbr_legacy", "-DMODE=0"),)
#: A host that acts at instructions that have nothing to do with what the guest does.
BUSY = """
at 1 open pinned exclude-guest
every 97 exit
every 211 sample
every 331 switch 7
every 503 close
every 757 open exclude-guest
every 1013 migrate
every 1511 branches 50
"""
#: One that acts where the guest writes to the port.
CHOSEN = """
port 1 open pinned
port 2 open pinned exclude-guest
port 3 close
port 4 switch
port 5 sample
port 6 migrate
port 7 branches 100
"""
LEGACY_HOST = "port 1 open pinned exclude-guest\nport 2 close\nport 3 switch\n"


def _built(directory: Path, words: tuple[str, ...]) -> Path:
    if shutil.which("gcc") is None:
        raise Skip("gcc is not installed")
    return build(directory, *words)


def _host(directory: Path, policy: str, text: str) -> Contention:
    path = directory / "script.txt"
    path.write_text(f"policy {policy}\n{text}")
    return Contention(read_script(path))


def _run(machine: Machine, printed: bytearray) -> tuple[bool, list[str]]:
    ending = machine.run(_LIMIT)
    lines = printed.decode(errors="replace").splitlines()
    return (ending.kind, ending.code) == ("exit", 0), lines[-8:]


def _guests(model: str) -> tuple[tuple[str, ...], ...]:
    return _ARCH if executable_model(model).arch else _LEGACY


def guest_cases(directory: Path, model: str) -> list[Case]:
    """Each guest has the processor to itself."""
    def run(words: tuple[str, ...]) -> tuple[bool, list[str]]:
        printed = bytearray()
        machine = Machine(model, memory=4 * MIB, console=printed.extend)
        machine.load(load(_built(directory, words)))
        return _run(machine, printed)

    return [Case(f"guest {words[0]}", partial(run, words)) for words in _guests(model)]


def _moved(directory: Path, model: str, path: Path, at: int,
           host: Script | None) -> tuple[int | None, bytes]:
    printed = bytearray()

    def contention() -> Contention | None:
        return Contention(host) if host else None

    machine = Machine(model, memory=4 * MIB, console=printed.extend, contention=contention())
    machine.load(load(path))
    machine.pause_at = at
    if machine.run(_LIMIT).kind != "pause":
        return None, bytes(printed)
    save(machine, directory / "middle.vm")
    other = restore(directory / "middle.vm", console=printed.extend, contention=contention())
    return other.run(_LIMIT).code, bytes(printed)


def saved_cases(directory: Path, model: str, policy: str, points: int) -> list[Case]:
    """Each guest is saved and restored at `points` points in turn, alone and as a vCPU of the
    policy; it prints what it prints without."""
    quiet = Script(policy, (Point("at", 1, Act("exit")),))

    def run(words: tuple[str, ...], host: Script | None) -> tuple[bool, list[str]]:
        path = _built(directory, words)
        whole = bytearray()
        machine = Machine(model, memory=4 * MIB, console=whole.extend,
                          contention=Contention(host) if host else None)
        machine.load(load(path))
        code = machine.run(_LIMIT).code
        length = machine.link.recorder.instructions
        wrong = []
        for n in range(points):
            at = 1 + (length * 97 // 100) * n // points
            answer = _moved(directory, model, path, at, host)
            if answer != (code, bytes(whole)):
                wrong.append(f"after {at:,} instructions: exit code {answer[0]}, not {code}")
        return not wrong and code == 0, wrong[:5] or [f"{points} points of {length:,} instructions"]

    return [Case(f"state_test: guest {words[0]}, {who}", partial(run, words, host))
            for words in _guests(model)
            for who, host in (("alone", None), (f"under {policy}", quiet))]


def _mode(policy: Policy) -> int:
    """Of lbr_contention.c: what the guest may notice."""
    if policy.claims == () or (policy.claims is not None and "P21" not in policy.claims):
        return 3
    return 1 if policy.guest_flag else 2 if policy.guest_short else 0


def contention_cases(directory: Path, model: str, policy: str) -> list[Case]:
    """A guest looks at its records while a host opens, samples, switches, closes, migrates."""
    made = make_policy(policy)
    mode = _mode(made)
    claimed = made.claims != ()

    def run(words: tuple[str, ...], script: str) -> tuple[bool, list[str]]:
        printed = bytearray()
        host = _host(directory, policy, script)
        machine = Machine(model, memory=4 * MIB, console=printed.extend, contention=host)
        machine.load(load(_built(directory, words)))
        passed, lines = _run(machine, printed)
        return passed and not host.leaked + host.breaches, [*lines, host.summary()]

    if executable_model(model).arch:
        looked: list[tuple[tuple[str, ...], str, bool]] = [
            (("lbr_contention", f"-DMODE={mode}"), CHOSEN, claimed)]
        looked += [(words, BUSY, claimed) for words in _ARCH if mode == 0 or made.host_flag]
    else:
        designed = int(not made.by_design or "P20" not in made.by_design)
        looked = [(("lbr_legacy", f"-DMODE={designed}"), LEGACY_HOST, True),
                  (("lbr_legacy", "-DMODE=2"), LEGACY_HOST, claimed)]
    what = {0: "the guest notices nothing", 1: "records are its own, or their loss is reported",
            2: "records are its own, or end early", 3: "no record is the host's"}[mode]
    names = {"lbr_contention": f"lbr_contention: {what}", "lbr_legacy": "lbr_legacy beside a host"}
    return [Case(names.get(words[0], f"{words[0]} beside a busy host")
                 + (": first touch" if "-DMODE=2" in words and len(looked) == 2 else ""),
                 partial(run, words, script), expected) for words, script, expected in looked]
