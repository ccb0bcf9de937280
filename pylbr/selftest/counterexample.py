"""A counterexample of the search as a guest program and a contention script for `pylbr run`.

The guest executes what the story's guest does, in straight lines, so that nothing else is recorded;
at a write to port F5h the script has the host do what it does there.  Then the guest looks at its
records and compares them with those that it would have alone.  What a machine cannot place, an
event between two micro-steps, is placed at the VM exit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pylbr.arbitration import make_policy
from pylbr.embed.contention import Contention, read_script
from pylbr.embed.image import load
from pylbr.embed.machine import MIB, Machine
from pylbr.errors import ConfigurationError
from pylbr.selftest.guest_images import build
from pylbr.verify.story import Story
from pylbr.verify.words import STEPS

__all__ = ["Reproduced", "reproduce", "write"]

#: Properties that a guest or the host's samples can show on a machine.
SHOWN = ("P1", "P1'", "P4", "P21")
_OPENS = {"cpu": "pinned", "cpu-exclude": "pinned exclude-guest", "cpu-flexible": "exclude-guest",
          "cpu-user": "pinned exclude-guest user", "task": "pinned task",
          "task-exclude": "pinned exclude-guest task", "task-flexible": "exclude-guest task"}
_HOST = {"host branch": "branches 1", "NMI": "sample", "PMI": "sample", "exit irq": "exit",
         "migrate": "migrate", "switch to host": "switch 2", "NMI branches": "branches 1",
         "IPI closes": "close"}
#: What the machine does by itself.
_FOLLOWS = ("switch to vCPU A", "enter")
_LOOKS = {"rdmsr LBR": "look_by_rdmsr", "xsaves": "look_by_xsaves"}
_VALUE = "0x{:x}ull"

_HEAD = """/* {title}
 * Written from a counterexample of pylbr verify; run it with the contention script beside it:
 *   pylbr run --contention {stem}.script {stem}.elf */
#include "guest.h"

#define LEGACY {legacy}
enum {{ HOST_PORT = 0xF5, RECORDS = 32, COMPONENT = 1 << 15, LBR_AT = 576 + 40 }};
#define HOST 0xC0DEu /* in bits 47:32 of every address of the host's */
#define ADDRESS 0xFFFFFFFFFFFFull
#define HOST_ACTS(point) out8(HOST_PORT, point)
#define BRANCH(n) \\
    __asm__ volatile(".globl b" #n ", t" #n "\\n b" #n ": jmp t" #n "\\n nop\\n t" #n ": nop")

typedef struct {{ uint64_t from, to; }} record;
static record seen[RECORDS];
static uint8_t area[2048] __attribute__((aligned(64)));
{labels}
#if LEGACY
#define FROM(i) (0x680u + ((uint32_t)(rdmsr(0x1C9) - (i)) & (RECORDS - 1)))
#define TO(i) (FROM(i) + 0x40)
#else
#define FROM(i) (IA32_LBR_FROM + (i))
#define TO(i) (IA32_LBR_TO + (i))
#endif
#define LOOK(i) seen[i].from = rdmsr(FROM(i)) & ADDRESS, seen[i].to = rdmsr(TO(i)) & ADDRESS
#define LOOK4(i) LOOK(i), LOOK(i + 1), LOOK(i + 2), LOOK(i + 3)
/* No branch: it would be recorded. */
#define look_by_rdmsr() \\
    (LOOK4(0), LOOK4(4), LOOK4(8), LOOK4(12), LOOK4(16), LOOK4(20), LOOK4(24), LOOK4(28))
#define look_by_xsaves() \\
    __asm__ volatile(".byte 0x0F, 0xC7, 0x2F" : : "D"(area), "a"(COMPONENT), "d"(0) : "memory")

static void restore(uint64_t from, uint64_t to) {{ /* XRSTORS of one record */
    memset(area, 0, sizeof area);
    *(uint64_t *)(area + 512) = COMPONENT;
    *(uint64_t *)(area + 520) = 1ull << 63 | COMPONENT;
    *(uint64_t *)(area + 576 + 8) = RECORDS;
    *(uint64_t *)(area + LBR_AT) = from;
    *(uint64_t *)(area + LBR_AT + 8) = to;
    __asm__ volatile(".byte 0x0F, 0xC7, 0x1F" : : "D"(area), "a"(COMPONENT), "d"(0) : "memory");
}}

void test(void) {{
#if !LEGACY
    uint64_t cr4;
    __asm__ volatile("mov %%cr4, %0; or $0x40000, %0; mov %0, %%cr4" : "=r"(cr4) : : "memory");
    wrmsr(IA32_XSS, COMPONENT);
#endif
"""

_TAIL = """#if LEGACY
    wrmsr(IA32_DEBUGCTL, 0);
#else
    if ({stop}) wrmsr(IA32_LBR_CTL, 0);
#endif
    for (int i = 0; {by_xsaves} && i < RECORDS; i++) {{
        seen[i].from = *(uint64_t *)(area + LBR_AT + 24 * i) & ADDRESS;
        seen[i].to = *(uint64_t *)(area + LBR_AT + 8 + 24 * i) & ADDRESS;
    }}
    static const record alone[RECORDS] = {{{alone}}};
    int host = 0, wrong = 0;
    for (int i = 0; i < RECORDS; i++) {{
        host += (seen[i].from >> 32 & 0xFFFF) == HOST;
        wrong += seen[i].from != alone[i].from || seen[i].to != alone[i].to;
    }}
    check(host == 0);
    check(wrong == 0 || !{compares});
    (void)restore;
}}
"""


@dataclass(frozen=True)
class Reproduced:
    """What a machine showed.

    Attributes
    ----------
    shown : bool
        The property is broken on the machine, too.
    lines : list of str
        What the guest printed, and the host's figures.
    """

    shown: bool
    lines: list[str]


class _Program:
    """The C statements and the script's lines of one story."""

    def __init__(self) -> None:
        self.body: list[str] = []
        self.points: list[list[str]] = []
        self.records: list[tuple[str, str]] = []     # alone, newest first
        self.branches = self.values = 0
        self.on = False
        self.looked = ""

    def host(self, act: str) -> None:
        if not self.body or not self.body[-1].startswith("HOST_ACTS"):
            self.points.append([])
            self.body.append(f"HOST_ACTS({len(self.points)});")
        self.points[-1].append(act)

    def _push(self, record: tuple[str, str], whole: bool = False) -> None:
        self.records = [record] if whole else [record, *self.records][:32]

    def guest(self, words: str, legacy: bool) -> None:
        """One instruction of the guest."""
        if words == "branch":
            n = self.branches
            self.branches += 1
            self.body.append(f"BRANCH({n});")
            if self.on:
                self._push((f"(uint64_t)b{n}", f"(uint64_t)t{n}"))
        elif words in _LOOKS:
            self.looked = words
            self.body.append(f"{_LOOKS[words]}();")
        elif words in ("wrmsr LBR_CTL", "wrmsr LBR_CTL 0"):
            self.on = not words.endswith("0")
            value = ("1" if legacy else "LBREN | LBR_OS | LBR_ALL") if self.on else "0"
            self.body.append(f"wrmsr({'IA32_DEBUGCTL' if legacy else 'IA32_LBR_CTL'}, {value});")
        elif words in ("wrmsr LBR", "xrstors"):
            self.values += 1
            pair = (_VALUE.format(0x1000 * self.values), _VALUE.format(0x1000 * self.values + 8))
            if words == "xrstors":
                self.body.append(f"restore({pair[0]}, {pair[1]});")
                self._push(pair, whole=True)
            else:
                self.body += [f"wrmsr(FROM(0), {pair[0]});", f"wrmsr(TO(0), {pair[1]});"]
                self.records = [pair, *self.records[1:]]
        elif words == "wrmsr LBR_DEPTH" and not legacy:
            self.body.append("wrmsr(IA32_LBR_DEPTH, RECORDS);")
            self.records = []
        else:
            raise ConfigurationError(f"counterexample: guest {words!r} has no program")


def _act(words: str) -> str | None:
    """What the host does; None for what follows of itself."""
    if words.startswith("IPI opens "):
        kind = words.removeprefix("IPI opens ")
        if kind not in _OPENS:
            raise ConfigurationError(f"counterexample: no contention script opens {kind!r}")
        return f"open {_OPENS[kind]}"
    if words in _HOST or words.startswith("IPI closes"):
        return _HOST.get(words, "close")
    if words in STEPS or words in _FOLLOWS:
        return None
    raise ConfigurationError(f"counterexample: no contention script has {words!r}")


def write(story: Story, directory: Path, stem: str) -> tuple[Path, Path]:
    """Write STEM.c and STEM.script.

    Raises
    ------
    ConfigurationError
        The property does not show on a machine, or something of the story cannot be placed there.
    """
    configuration = story.configuration
    if story.property not in SHOWN:
        raise ConfigurationError(f"counterexample: {story.property} does not show on a machine; "
                                 f"{', '.join(SHOWN)} do")
    if configuration.cpus != 1:
        raise ConfigurationError("counterexample: a machine has one processor")
    if configuration.flaws:
        raise ConfigurationError("counterexample: a script names a policy, without flaws")
    legacy = make_policy(configuration.policy).legacy
    program = _Program()
    for step in story.replay():
        words = step["word"]
        if words.startswith("guest B") or words == "switch to vCPU B":
            raise ConfigurationError("counterexample: a machine has one guest")
        if words.startswith("guest A "):
            program.guest(words.removeprefix("guest A "), legacy)
        elif act := _act(words):
            program.host(act)
    if not program.looked:  # the search looks at every state, by whatever does not exit
        program.guest("xsaves" if "xsaves" in configuration.features and not legacy
                      else "rdmsr LBR", legacy)
    labels = "".join(f"extern char b{n}[], t{n}[];\n" for n in range(program.branches))
    compares = int(story.property in ("P21", "P1'"))
    text = _HEAD.format(title=f"{story.property} under {configuration.policy}", stem=stem,
                        legacy=int(legacy), labels=labels)
    text += "".join(f"    {line}\n" for line in program.body)
    text += _TAIL.format(by_xsaves=int(program.looked == "xsaves"), compares=compares,
                         stop=int(program.on),
                         alone=", ".join(f"{{{a}, {b}}}" for a, b in program.records) or "{0, 0}")
    source, script = directory / f"{stem}.c", directory / f"{stem}.script"
    source.write_text(text)
    script.write_text(f"policy {configuration.policy}\n" + "".join(
        f"port {n} {act}\n" for n, acts in enumerate(program.points, 1) for act in acts))
    return source, script


def reproduce(story: Story, directory: Path, stem: str, policy: str | None = None) -> Reproduced:
    """Build the program, run it beside the script's host, and see whether the property breaks.

    Parameters
    ----------
    policy : str, optional
        Instead of the story's.
    """
    source, script = write(story, directory, stem)
    if policy:
        script.write_text(script.read_text().replace(
            f"policy {story.configuration.policy}\n", f"policy {policy}\n"))
    host, printed = Contention(read_script(script)), bytearray()
    model = "skylake" if make_policy(story.configuration.policy).legacy else "sapphire-rapids"
    machine = Machine(model, memory=4 * MIB, console=printed.extend, contention=host)
    machine.load(load(build(directory, stem, source=source)))
    ending = machine.run(10_000_000)
    lines = [*printed.decode(errors="replace").splitlines(), host.summary()]
    if (ending.kind, ending.code) not in (("exit", 0), ("exit", 1)):
        return Reproduced(False, [*lines, f"{ending.kind} {ending.code}"])
    shown = {"P1": bool(host.leaked) and ending.code == 1, "P4": bool(host.breaches)}
    return Reproduced(shown.get(story.property, ending.code == 1), lines)
