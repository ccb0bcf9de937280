"""The rows as constants: ``pylbr/arch/bits.py`` for Python and ``bits.pxd`` for Cython.

``python -m pylbr.arch.generate`` renews both; a test holds them equal to the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pylbr.arch.cpuid import CPUID_FIELDS
from pylbr.arch.registers import REGISTERS

__all__ = ["PREFIXES", "constants", "python", "pxd"]

#: Register -> prefix of its fields' masks.
PREFIXES = {
    "IA32_LBR_CTL": "CTL", "MSR_LBR_SELECT": "SELECT", "IA32_LBR_{}_INFO": "INFO",
    "DBG_EXTN_CFG": "DBG_EXTN_CFG", "IA32_PERFEVTSEL{}": "EVTSEL",
    "IA32_FIXED_CTR_CTRL": "FIXED_CTRL", "IA32_PERF_GLOBAL_STATUS": "STATUS",
    "IA32_PERF_GLOBAL_INUSE": "INUSE", "IA32_PERF_CAPABILITIES": "PERF_CAPABILITIES",
    "MSR_PEBS_DATA_CFG": "PEBS_DATA_CFG", "IA32_DEBUGCTL": "DEBUGCTL",
    "MSR_DEBUGCTLA": "DEBUGCTLA", "IA32_RTIT_CTL": "RTIT_CTL",
    "IA32_PMC_GP{}_CFG_C": "CFG_C", "IA32_FRED_CONFIG": "FRED_CONFIG",
}
#: Masks of several fields.
GROUPS = {
    "CTL_CPL": ("CTL_OS", "CTL_USR"),
    "CTL_CLASSES": ("CTL_COND", "CTL_NEAR_REL_JMP", "CTL_NEAR_IND_JMP", "CTL_NEAR_REL_CALL",
                    "CTL_NEAR_IND_CALL", "CTL_NEAR_RET", "CTL_OTHER_BRANCH"),
}
HEAD = "Numbers of registers, masks of their fields and bits of CPUID leaf 1CH, out of the rows."
RENEW = "Generated: python -m pylbr.arch.generate"
_INT = 1 << 31


def _name(prefix: str, field: str) -> str:
    return f"{prefix}_{field}".upper().replace(" ", "_")


def constants() -> Iterator[tuple[str, int, str]]:
    """Name, value and register of every constant, in the order of the rows."""
    for row in REGISTERS:
        if not callable(row.index):
            yield row.name.format(row.first), row.index, ""
    masks: dict[str, int] = {}
    for row in REGISTERS:
        for field in row.fields if row.name in PREFIXES else ():
            name = _name(PREFIXES[row.name], field.name)
            if field.name != "undefined" and name not in masks:
                masks[name] = field.mask
                yield name, field.mask, row.name.format("x")
    for name, parts in GROUPS.items():
        yield name, sum(masks[part] for part in parts), "IA32_LBR_CTL, several fields"
    for cpuid in CPUID_FIELDS:
        if cpuid.leaf == 0x1C and cpuid.hi == cpuid.lo:
            name = _name(f"CPUID_1C_{cpuid.register}", cpuid.name.replace("-", "_"))
            yield name, 1 << cpuid.lo, f"CPUID.1CH:{cpuid.register.upper()}"


def _digits(value: int) -> str:
    return f"{value:#x}".replace("0x", "\0").upper().replace("\0", "0x")


def _lines(form: Callable[[str, int], str]) -> Iterator[str]:
    of = None
    for name, value, register in constants():
        if register and register != of:
            yield f"# {register}"
            of = register
        yield form(name, value)


def python() -> str:
    """``bits.py``."""
    lines = _lines(lambda name, value: f"{name} = {_digits(value)}")
    return f'"""{HEAD}"""\n# {RENEW}\n\n' + "\n".join(lines) + "\n"


def pxd() -> str:
    """``bits.pxd``: what fits is an enumerator, for tables and cases; the rest a 64-bit macro."""
    small = [line for line in _lines(lambda n, v: f"{n} = {_digits(v)}" if v < _INT else "")
             if line]
    large = [(name, value) for name, value, _ in constants() if value >= _INT]
    macros = "\n".join(f"    #define PYLBR_{name} UINT64_C({_digits(value)})"
                       for name, value in large)
    names = "\n".join(f'    const uint64_t {name} "PYLBR_{name}"' for name, _ in large)
    enum = "\n".join(f"    {line}" for line in small)
    return (f'"""{HEAD}"""\n# {RENEW}\n\nfrom libc.stdint cimport uint64_t\n\n'
            f"cdef enum:\n{enum}\n\n"
            f'cdef extern from *:\n    """\n{macros}\n    """\n{names}\n')


def main() -> None:
    """Write both files beside this one."""
    here = Path(__file__).parent
    (here / "bits.py").write_text(python())
    (here / "bits.pxd").write_text(pxd())


if __name__ == "__main__":
    main()
