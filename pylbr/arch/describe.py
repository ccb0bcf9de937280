"""The rows as text: a register's fields, a value decoded, ``docs/registers.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pylbr.arch.branches import BRANCH_CLASSES
from pylbr.arch.cpuid import CPUID_FIELDS
from pylbr.arch.features import CpuModel
from pylbr.arch.fields import Field, FieldKind
from pylbr.arch.formats import FORMATS
from pylbr.arch.models import FEATURE_SETS, MODELS
from pylbr.arch.perf_events import EVENTS
from pylbr.arch.register import Access, MsrRegister, Register
from pylbr.arch.registers import REGISTERS
from pylbr.tables import Table

__all__ = ["decode", "fields_of", "reference"]

#: Every model that has a name.
_MODELS: tuple[CpuModel, ...] = (*MODELS.values(), *FEATURE_SETS.values())

GROUPS: tuple[tuple[str, Callable[[CpuModel], object]], ...] = (
    ("all", lambda m: True),
    ("Intel", lambda m: m.intel),
    ("architectural", lambda m: m.arch),
    ("legacy", lambda m: m.legacy),
    ("AMD", lambda m: m.amd),
)


def fields_of(register: MsrRegister, model: CpuModel) -> Iterator[Field]:
    """The fields that `model` has, from bit 0 up."""
    yield from sorted((f for f in register.row.fields if f.offered(model)), key=lambda f: f.lo)


def decode(register: MsrRegister, model: CpuModel, value: int) -> Iterator[tuple[Field, int]]:
    """Each field with its part of `value`."""
    for field in fields_of(register, model):
        yield field, field.get(value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [str(Table(list(rows), head, markdown=True)), ""]


def _who(test: Callable[[CpuModel], object], among: Iterable[CpuModel] = _MODELS) -> str:
    """Names of the models for which `test` holds, or of a group that is exactly those."""
    among = list(among)
    chosen = [m for m in among if test(m)]
    for name, group in GROUPS:
        if chosen and chosen == [m for m in among if group(m)]:
            return name
    if len(chosen) > len(among) // 2 and len(chosen) < len(among):
        return "all but " + ", ".join(m.name for m in among if m not in chosen)
    return ", ".join(m.name for m in chosen)


def _numbers(row: Register) -> str:
    """MSR numbers, of every model that has the row."""
    spans = set()
    for model in _MODELS:
        count = row.count(model)
        if count:
            first = MsrRegister.of(row, model, 0).index
            last = MsrRegister.of(row, model, count - 1).index
            step = f", step {row.stride}" if row.stride > 1 and count > 1 else ""
            spans.add((first, f"{first:X}H" if count == 1 else f"{first:X}H-{last:X}H{step}"))
    return "; ".join(text for _, text in sorted(spans))


def _resets(row: Register) -> str:
    values = {MsrRegister.of(row, m, 0).reset for m in _MODELS if row.count(m)}
    return f"{values.pop():#x}" if len(values) == 1 else "by model"


def _kind(field: Field) -> str:
    return "" if field.kind is FieldKind.RW else field.kind.value


def _register(row: Register) -> Iterator[str]:
    having = [m for m in _MODELS if row.count(m)]
    facts = [f"{_numbers(row)}", row.access.value if row.access is not Access.RW else "R/W",
             f"RESET {_resets(row)}"]
    if row.survives_warm_reset:
        facts.append("survives a warm reset")
    yield f"### {row.name.format('n')}"
    yield ""
    yield f"{'; '.join(facts)}.  On: {_who(row.count)}.  Source: {row.source}."
    if any(map(row.per_core, having)):
        yield ""
        yield f"The threads of a core share it on: {_who(row.per_core)}."
    if row.rule:
        yield ""
        yield f"{row.rule[0].upper()}{row.rule[1:]}."
    yield ""
    rows, seen = [], set()
    for field in sorted(row.fields, key=lambda f: f.lo):
        on = [m for m in having if field.offered(m)]
        if not on or (field.bits, field.name, field.kind) in seen:
            continue
        seen.add((field.bits, field.name, field.kind))
        where = "" if on == having else _who(field.offered, having)
        rows.append((field.bits, field.name, field.meaning or _kind(field) or "",
                     _kind(field) if field.meaning else "", where))
    yield from _table(("bits", "field", "meaning", "writes", "only on"), rows)


def _cpuid() -> Iterator[str]:
    yield "## CPUID"
    yield ""
    yield from _table(
        ("leaf", "subleaf", "register", "bits", "meaning", "sapphire-rapids"),
        ((f"{f.leaf:X}H", "" if f.subleaf is None else str(f.subleaf), f.register.upper(), f.bits,
          f.name, f"{f.value(_SAMPLE, _SAMPLE.xcr0, _SAMPLE.xss):#x}")
         for f in CPUID_FIELDS if f.offered(_SAMPLE)),
    )


_SAMPLE = MODELS["sapphire-rapids"]


def _classes() -> Iterator[str]:
    yield "## Branch classes"
    yield ""
    yield from _table(
        ("class", "BR_TYPE", "IA32_LBR_CTL bit", "LBR_SELECT bit", "members"),
        ((f"{row.cls} {row.cls.name}", *("-" if v is None else str(v) for v in
                                         (row.br_type, row.ctl_bit, row.select_bit)), row.members)
         for row in BRANCH_CLASSES),
    )


def _formats() -> Iterator[str]:
    yield "## LBR formats"
    yield ""
    yield from _table(
        ("LBR_FMT", "name", "layout", "models"),
        ((str(f.number), f.name, f.layout,
          ", ".join(m.name for m in _MODELS
                    if m.legacy and m.legacy.format == f.number)) for f in FORMATS.values()),
    )


def _events() -> Iterator[str]:
    yield "## Events that a branch stream carries"
    yield ""
    yield from _table(
        ("event", "select", "umask", "counts", "tables"),
        ((e.name, f"{e.select:02X}H", f"{e.umask:02X}H",
          ("mispredicted " if e.mispredicted else "") + e.unit.name.lower(),
          ", ".join(sorted(e.tables))) for e in EVENTS),
    )


def reference() -> str:
    """The text of ``docs/registers.md``."""
    lines = [
        "# Register reference", "",
        "Generated from the rows in `pylbr/arch` by `pylbr msr --reference`; do not edit.", "",
        "A bit outside of all fields, or of a field that a model lacks, is reserved: a WRMSR "
        "that sets it faults.  \"Only on\" is empty where every model with the register has the "
        "field.", "", "## MSRs", "",
    ]
    for row in REGISTERS:
        lines += _register(row)
    for part in (_cpuid, _classes, _formats, _events):
        lines += part()
    return "\n".join(lines).rstrip() + "\n"
