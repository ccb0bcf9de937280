"""The models as C tables: ``lbrcore/library/models.c``, which liblbrcore contains.

``python -m pylbr.cpu.compiled.generate`` renews it; a test holds it equal to the rows.  What the
rows specify for a model is computed here, so that C only looks up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lbrcore import LbrConfig
from pylbr.arch import choices
from pylbr.arch.cpuid import CPUID_FIELDS, cpuid, max_extended, max_leaf
from pylbr.arch.features import CpuModel
from pylbr.arch.formats import FORMATS
from pylbr.arch.models import MODELS
from pylbr.arch.perf_events import EVENTS, FIXED_EVENTS
from pylbr.arch.refusals import depth_rule, format_rule, no_such_register
from pylbr.arch.register import Access, MsrRegister
from pylbr.arch.registers import REGISTERS, registers
from pylbr.arch.xsave import COMPONENTS, component_size
from pylbr.cpu.facility import config, effective
from pylbr.cpu.msr.dispatch import ACCESSORS
from pylbr.cpu.msr.lbr_legacy import LEGACY

__all__ = ["tables"]

#: Accessors of rows that have a value of their own.
_VALUES = ("plain", "canonical", "capabilities", "rtit")
_ANY = 0xFFFFFFFF

FLAGS: dict[str, Callable[[CpuModel], object]] = {
    "ARCH": lambda m: m.arch,
    "LEGACY": lambda m: m.legacy,
    "AMD": lambda m: m.amd,
    "INTEL": lambda m: m.intel,
    "TSX": lambda m: m.tsx,
    "SGX": lambda m: m.sgx,
    "NETBURST": lambda m: m.netburst,
    "PT_EXCLUDES_LBR": lambda m: m.pt_excludes_lbr,
    "SIGNEXT_QUIRK": lambda m: m.legacy and m.legacy.signext_quirk,
    "EFFECTIVE": effective,
    "FREEZE_WHILE_SMM": lambda m: m.freeze_while_smm,
    "DEEP_CSTATE_RESET": lambda m: m.arch.deep_cstate_reset if m.arch else m.legacy,
    "SINGLE": lambda m: m.legacy and FORMATS[m.legacy.format].single,
    "TO_CYCLES": lambda m: m.legacy and FORMATS[m.legacy.format].to_cycles,
    "NONCANONICAL_FAULTS": lambda m: choices.LEGACY_NONCANONICAL_WRITE_FAULTS,
    "LER_IGNORES_HIGH_BITS": lambda m: choices.LER_WRITE_IGNORES_HIGH_BITS,
    "FREEZE_CLEARS_LBREN": lambda m: choices.FREEZE_BELOW_V4_CLEARS_LBREN,
    "SELECT_SURVIVES": lambda m: choices.LEGACY_SELECT_SURVIVES_WARM_RESET,
    "SURVIVES_WARM_RESET": lambda m: not m.amd or choices.AMD_SURVIVES_WARM_RESET,
    "DB_CLEARS_ENABLE": lambda m: m.amd and choices.AMD_DB_CLEARS_LBRV2EN,
    "OPT_OUT_STOPS_COUNTERS": lambda m: choices.OPT_OUT_ENCLAVE_STOPS_COUNTERS,
    "HOST_ABSENT_READS_ZERO": lambda m: choices.HOST_ABSENT_READS_ZERO,
}


def _number(value: int) -> str:
    return str(value) if value < 10 else f"{value:#x}" + "u" * (value < 1 << 32) + (
        "ull" * (value >= 1 << 32))


def _words(values: Iterable[object]) -> str:
    return "{" + ", ".join(_number(v) if isinstance(v, int) else str(v) for v in values) + "}"


def _runs(model: CpuModel) -> Iterator[list[MsrRegister]]:
    """The registers of each row that the model has, by their first number."""
    rows: dict[str, list[MsrRegister]] = {}
    for register in registers(model).values():
        rows.setdefault(register.row.name, []).append(register)
    for run in rows.values():
        assert len({(r.writable, r.reserved, r.reset) for r in run}) == 1, run[0].name
        yield run


def _register(model: CpuModel, run: list[MsrRegister]) -> str:
    first, row = run[0], run[0].row
    accessor = row.accessor
    legacy = LEGACY.get(accessor) if model.legacy else None
    name = ("legacy." if legacy else "") + accessor
    value = f"LBR_VALUE_{row.name}" if accessor in _VALUES else 0
    return _words([
        f'"{row.name}"', first.index, len(run), row.stride,
        "LBR_ACC_" + name.upper().replace(".", "_"), value,
        int((legacy or ACCESSORS[accessor]).of_lbr),
        int(row.access is not Access.RO), first.writable, first.reserved_bits, first.reset])


def _absent_everywhere(known: set[int]) -> Iterator[str]:
    """Rows that no named model has: the host's accesses to them read 0."""
    for row in REGISTERS:
        if not callable(row.index) and row.index not in known:
            yield _words([f'"{row.name}"', row.index, 1, 1, "LBR_ACC_PLAIN", 0, 0, 0, 0, 0, 0])


def _leaves(model: CpuModel) -> list[str]:
    """CPUID, but for the two sizes that depend on XCR0 and IA32_XSS."""
    rows = []
    for leaf, subleaf in sorted({(f.leaf, f.subleaf) for f in CPUID_FIELDS},
                                key=lambda pair: (pair[0], pair[1] or 0)):
        if leaf > (max_leaf(model) if leaf < 0x80000000 else max_extended(model)):
            continue
        words = list(cpuid(model, leaf, subleaf or 0, 1, 0))
        if leaf == 0xD and subleaf in (0, 1):
            words[1] = 0
        if any(words):
            rows.append(_words([leaf, _ANY if subleaf is None else subleaf, *words]))
    return rows


def _config(core: LbrConfig) -> str:
    return _words([int(core.flavour), core.depth_bitmap, core.depth, core.linear_width,
                   core.event_counters, int(core.quirks), "{0, 0}", core.ctl_mask,
                   core.info_mask])


def _sparse(values: dict[int, int]) -> str:
    return "{" + ", ".join(f"[{bit}] = {value}" for bit, value in values.items()) + "}" \
        if values else "{0}"


def _model(model: CpuModel, runs: int, leaves: int, events: int) -> str:
    name, pmu = model.name.replace("-", "_"), model.pmu
    flags = " | ".join(f"LBR_MODEL_{flag}" for flag, test in FLAGS.items() if test(model))
    fixed = FIXED_EVENTS[:4]
    sizes = {bit: component_size(model, bit) for bit in COMPONENTS
             if (model.xcr0 | model.xss) >> bit & 1}
    aligned = sum(1 << c.bit for c in COMPONENTS.values() if c.aligned)
    return f"""\
    {{"{model.name}", "{no_such_register(model)}",
     "{depth_rule(model)}", "{format_rule(model)}",
     {_config(config(model))},
     {flags},
     {model.linear_width}, {FORMATS[model.legacy.format].from_flags if model.legacy else 0}, \
{choices.AMD_RETIRED_VALID_SPEC}, {_number(model.lbr_format)},
     {pmu.version}, {pmu.counters}, {pmu.counter_width}, {pmu.fixed}, {pmu.fixed_width}, \
{pmu.pebs_format}, {runs}, {leaves}, {events},
     {_words(int(e.unit) if e else 0 for e in fixed)}, \
{_words(e.classes if e else 0 for e in fixed)},
     {_words([max_leaf(model), max_extended(model), model.xcr0, model.xss])[1:-1]},
     registers_{name}, leaves_{name}, events_{pmu.events.replace("-", "_")},
     {{{_sparse(sizes)}, 0, {_number(aligned)}}}}}"""


def tables() -> str:
    """``models.c``."""
    pool: dict[str, int] = {}
    arrays, models, known = [], [], set()
    events = {name: [_words([e.select, e.umask, int(e.mispredicted), int(e.unit), e.classes])
                     for e in EVENTS if name in e.tables]
              for name in dict.fromkeys(m.pmu.events for m in MODELS.values())}
    for name, rows in events.items():
        arrays.append(_array("lbr_event", f"events_{name.replace('-', '_')}", rows))
    for model in MODELS.values():
        name = model.name.replace("-", "_")
        runs = sorted(_runs(model), key=lambda run: run[0].index)
        known |= {register.index for run in runs for register in run}
        places = [pool.setdefault(_register(model, run), len(pool)) for run in runs]
        leaves = _leaves(model)
        arrays.append(f"static const uint8_t registers_{name}[] = "
                      f"{{{', '.join(map(str, places))}}};")
        arrays.append(_array("lbr_leaf", f"leaves_{name}", leaves))
        models.append(_model(model, len(runs), len(leaves),
                             len(events[model.pmu.events])))
    rows = [*pool, *_absent_everywhere(known)]
    assert len(pool) < 256
    supervisor = sum(1 << c.bit for c in COMPONENTS.values() if c.supervisor)
    offsets = {c.bit: c.offset for c in COMPONENTS.values() if c.offset}
    return "\n".join([
        "/* The models, out of the rows of pylbr.arch.",
        " * Generated: python -m pylbr.cpu.compiled.generate",
        " * SPDX-License-Identifier: Apache-2.0 */",
        '#include "lbrcore_cpu.h"', "",
        _array("lbr_register", "lbr_registers", rows),
        f"enum {{ LBR_REGISTERS = {len(rows)}, LBR_MODELS = {len(models)} }};",
        f"static const uint32_t lbr_table_offset[63] = {_sparse(offsets)};",
        f"static const uint64_t lbr_table_supervisor = {_number(supervisor)};",
        *arrays,
        "static const lbr_model lbr_models[] = {", ",\n".join(models), "};", ""])


def _array(kind: str, name: str, rows: list[str]) -> str:
    return f"static const {kind} {name}[] = {{\n    " + ",\n    ".join(rows) + "\n};"


def main() -> None:
    """Write the file."""
    root = Path(__file__).resolve().parents[3]
    (root / "lbrcore" / "library" / "models.c").write_text(tables())


if __name__ == "__main__":
    main()
