"""The C of a guest that repeats what a story's guest does, and looks at what it can see then."""

from __future__ import annotations

from dataclasses import dataclass, field

from pylbr.arch.bits import DEBUGCTL_FREEZE_LBRS_ON_PMI
from pylbr.errors import ConfigurationError

__all__ = ["GuestProgram", "LOOKS"]

#: What reads the records: words of a story -> a macro of the program.
LOOKS = {"rdmsr LBR": "look_by_rdmsr", "xsaves": "look_by_xsaves"}
_VALUE = "0x{:x}ull"
_DEPTH = 32

_HEAD = """/* {title}
 * Written from a counterexample of pylbr verify; run it with the contention script beside it:
 *   pylbr run --contention {stem}.script {stem}.elf */
#include "guest.h"

#define LEGACY {legacy}
enum {{ HOST_PORT = 0xF5, RECORDS = 32, COMPONENT = 1 << 15 }};
enum {{ LER_AT = 576 + 16, LBR_AT = 576 + 40 }};
/* In bits 47:32 of every address of the host's, and of another guest's. */
#define HOST 0xC0DEu
#define OTHER 0xC0D6u
#define ADDRESS 0xFFFFFFFFFFFFull
#define HOST_ACTS(point) out8(HOST_PORT, point)
#define BRANCH(n) \\
    __asm__ volatile(".globl b" #n ", t" #n "\\n b" #n ": jmp t" #n "\\n nop\\n t" #n ": nop")
/* An exception, whose handler is one IRETQ. */
#define FAULT(n) __asm__ volatile(".globl b" #n ", t" #n "\\n b" #n ": int3\\n t" #n ": nop")
__asm__(".globl bare\\n bare: iretq");

typedef struct {{ uint64_t from, to; }} record;
static record seen[RECORDS], ler;
static uint8_t area[2048] __attribute__((aligned(64)));
extern char bare[];
{labels}
#if LEGACY
#define FROM(i) (0x680u + ((uint32_t)(rdmsr(0x1C9) - (i)) & (RECORDS - 1)))
#define TO(i) (FROM(i) + 0x40)
#define CONTROL() rdmsr(IA32_DEBUGCTL)
#else
#define FROM(i) (IA32_LBR_FROM + (i))
#define TO(i) (IA32_LBR_TO + (i))
#define CONTROL() rdmsr(IA32_LBR_CTL)
#endif
#define LER 0x1DDu
#define LOOK(i) seen[i].from = rdmsr(FROM(i)) & ADDRESS, seen[i].to = rdmsr(TO(i)) & ADDRESS
#define LOOK4(i) LOOK(i), LOOK(i + 1), LOOK(i + 2), LOOK(i + 3)
/* No branch: it would be recorded. */
#define look_by_rdmsr() \\
    (LOOK4(0), LOOK4(4), LOOK4(8), LOOK4(12), LOOK4(16), LOOK4(20), LOOK4(24), LOOK4(28))
#define look_by_xsaves() \\
    __asm__ volatile(".byte 0x0F, 0xC7, 0x2F" : : "D"(area), "a"(COMPONENT), "d"(0) : "memory")

static inline uint8_t host_flags(void) {{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"((uint16_t)HOST_PORT));
    return value;
}}

static inline uint64_t at(const uint8_t *p) {{ return *(const uint64_t *)p & ADDRESS; }}

static void restore(uint64_t from, uint64_t to) {{ /* XRSTORS of one record */
    memset(area, 0, sizeof area);
    *(uint64_t *)(area + 512) = COMPONENT;
    *(uint64_t *)(area + 520) = 1ull << 63 | COMPONENT;
    *(uint64_t *)(area + 576 + 8) = RECORDS;
    *(uint64_t *)(area + LBR_AT) = from;
    *(uint64_t *)(area + LBR_AT + 8) = to;
    __asm__ volatile(".byte 0x0F, 0xC7, 0x1F" : : "D"(area), "a"(COMPONENT), "d"(0) : "memory");
}}

static void handle_int3_bare(void) {{
    uint64_t handler = (uint64_t)bare;
    idt[6] = (idt[6] & 0x0000FFFFFFFF0000ull) | (handler & 0xFFFF) | (handler >> 16 & 0xFFFF) << 48;
    idt[7] = handler >> 32;
}}

void test(void) {{
    uint64_t control = 0;
    handle_int3_bare();
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
        seen[i].from = at(area + LBR_AT + 24 * i);
        seen[i].to = at(area + LBR_AT + 8 + 24 * i);
    }}
    if ({by_xsaves}) ler.from = at(area + LER_AT), ler.to = at(area + LER_AT + 8);
    static const record alone[RECORDS] = {{{alone}}}, ler_alone = {ler};
    int host = 0, other = 0, wrong = 0;
    for (int i = 0; i <= RECORDS; i++) {{
        record each = i < RECORDS ? seen[i] : ler, own = i < RECORDS ? alone[i] : ler_alone;
        host += (each.from >> 32 & 0xFFFF) == HOST;
        other += (each.from >> 32 & 0xFFFF) == OTHER;
        wrong += i < RECORDS && (each.from != own.from || each.to != own.to);
    }}
    check(host == 0);
    check(other == 0);
    check(wrong == 0 || !{records});
    check((ler.from == ler_alone.from && ler.to == ler_alone.to) || !{looks_at_ler});
    check(control == {control}ull || !{looks_at_control});
    (void)restore, (void)host_flags;
}}
"""


@dataclass
class GuestProgram:
    """Statements of the guest, and what it would see alone.

    Parameters
    ----------
    legacy : bool
        The processor has legacy LBRs.
    """

    legacy: bool
    body: list[str] = field(default_factory=list)
    records: list[tuple[str, str]] = field(default_factory=list)    # newest first
    ler: tuple[str, str] = ("0", "0")
    looked: str = ""
    on: bool = False
    freezes: bool = False
    #: When the control register is compared, as C: VM entry of L1 may fail.
    asks: str = "1"
    _labels: int = 0
    _values: int = 0

    def host_acts(self, point: int) -> None:
        """A write to the host's port."""
        self.body.append(f"HOST_ACTS({point});")

    def _push(self, record: tuple[str, str]) -> None:
        self.records = [record, *self.records][:_DEPTH]

    def _label(self) -> tuple[str, str]:
        self._labels += 1
        return f"(uint64_t)b{self._labels - 1}", f"(uint64_t)t{self._labels - 1}"

    def reset(self) -> None:
        """The vCPU is reset: nothing is left."""
        self.records, self.ler, self.on, self.freezes = [], ("0", "0"), False, False

    def instruction(self, words: str) -> None:
        """One instruction or branch.

        Raises
        ------
        ConfigurationError
            A program of the machine does not have it.
        """
        if words == "branch":
            source, target = self._label()
            self.body.append(f"BRANCH({self._labels - 1});")
            if self.on:
                self._push((source, target))
        elif words == "branch fault":
            source, target = self._label()
            self.body.append(f"FAULT({self._labels - 1});")
            if self.on:
                self.ler = self.records[0] if self.records else self.ler
                self._push((source, "(uint64_t)bare"))
                self._push(("(uint64_t)bare", target))
        elif words in LOOKS:
            self.looked = words
            self.body.append(f"{LOOKS[words]}();")
        elif words in ("wrmsr LBR_CTL", "wrmsr LBR_CTL 0", "wrmsr FREEZE_LBRS_ON_PMI"):
            self._control(words)
        elif words in ("wrmsr LBR", "xrstors"):
            self._values += 1
            pair = _VALUE.format(0x1000 * self._values), _VALUE.format(0x1000 * self._values + 8)
            if words == "xrstors":
                self.body.append(f"restore({pair[0]}, {pair[1]});")
                self.records, self.ler = [pair], ("0", "0")
            else:
                self.body += [f"wrmsr(FROM(0), {pair[0]});", f"wrmsr(TO(0), {pair[1]});"]
                self.records = [pair, *self.records[1:]]
        elif words == "wrmsr LBR_DEPTH" and not self.legacy:
            self.body.append("wrmsr(IA32_LBR_DEPTH, RECORDS);")
            self.records = []
        else:
            raise ConfigurationError(f"counterexample: guest {words!r} has no program")

    def _control(self, words: str) -> None:
        if words.startswith("wrmsr LBR_CTL"):
            self.on = not words.endswith("0")
        else:
            self.freezes = True
        debugctl = DEBUGCTL_FREEZE_LBRS_ON_PMI * self.freezes | (self.legacy and self.on)
        if self.legacy or words.startswith("wrmsr FREEZE"):
            self.body.append(f"wrmsr(IA32_DEBUGCTL, {debugctl:#x});")
        else:
            self.body.append("wrmsr(IA32_LBR_CTL, "
                             f"{'LBREN | LBR_OS | LBR_USR | LBR_ALL' if self.on else '0'});")

    def look(self, by_xsaves: bool, looks_at_ler: bool) -> None:
        """Read the records unless the story did, and LER."""
        if not self.looked:
            self.instruction("xsaves" if by_xsaves else "rdmsr LBR")
        if looks_at_ler and self.looked != "xsaves":
            self.body += ["ler.from = rdmsr(LER) & ADDRESS;", "ler.to = rdmsr(LER + 1) & ADDRESS;"]

    def text(self, title: str, stem: str, *, control: int | None, records: bool, ler: bool) -> str:
        """The C file.

        Parameters
        ----------
        control : int or None
            What the control register should be; None: it is not looked at.
        records, ler : bool
            Compare the records, and LER.
        """
        labels = "".join(f"extern char b{n}[], t{n}[];\n" for n in range(self._labels))
        text = _HEAD.format(title=title, stem=stem, legacy=int(self.legacy), labels=labels)
        text += "".join(f"    {line}\n" for line in self.body)
        return text + _TAIL.format(
            by_xsaves=int(self.looked == "xsaves"), records=int(records), looks_at_ler=int(ler),
            stop=int(self.on), control=f"{control or 0:#x}",
            looks_at_control="0" if control is None else self.asks,
            ler="{" + ", ".join(self.ler) + "}",
            alone=", ".join(f"{{{a}, {b}}}" for a, b in self.records) or "{0, 0}")
