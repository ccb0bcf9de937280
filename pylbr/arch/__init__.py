"""Facts as rows: branch classes, registers, CPUID leaves, models, LBR formats, choices.

Names are loaded when they are asked for: a command that needs one table waits for no other.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pylbr.arch.branches import BRANCH_CLASSES, BranchRow, br_type_name
    from pylbr.arch.cpuid import CPUID_FIELDS, CpuidField, cpuid, leaves
    from pylbr.arch.features import AmdLbr, ArchLbr, CpuModel, LegacyLbr, Pmu
    from pylbr.arch.fields import Field, FieldKind
    from pylbr.arch.formats import FORMATS, LbrFormat
    from pylbr.arch.models import FEATURE_SETS, MODELS, architectural, model
    from pylbr.arch.perf_events import EVENTS, FIXED_EVENTS, PerfEvent
    from pylbr.arch.registers import REGISTERS, Access, MsrRegister, Register, find, registers
    from pylbr.arch.validate import check, objections
    from pylbr.arch.vmx import ExitReason

__all__ = [
    "Access", "AmdLbr", "ArchLbr", "BRANCH_CLASSES", "BranchRow", "CPUID_FIELDS", "CpuModel",
    "CpuidField", "EVENTS", "ExitReason", "FEATURE_SETS", "FIXED_EVENTS", "FORMATS", "Field",
    "FieldKind", "LbrFormat", "LegacyLbr", "MODELS", "MsrRegister", "PerfEvent", "Pmu",
    "REGISTERS", "Register", "architectural", "br_type_name", "check", "cpuid", "find", "leaves",
    "model", "objections", "registers",
]

#: Names by module.
_NAMES = {
    "branches": "BRANCH_CLASSES BranchRow br_type_name",
    "cpuid": "CPUID_FIELDS CpuidField cpuid leaves",
    "features": "AmdLbr ArchLbr CpuModel LegacyLbr Pmu",
    "fields": "Field FieldKind",
    "formats": "FORMATS LbrFormat",
    "models": "FEATURE_SETS MODELS architectural model",
    "perf_events": "EVENTS FIXED_EVENTS PerfEvent",
    "registers": "REGISTERS Access MsrRegister Register find registers",
    "validate": "check objections",
    "vmx": "ExitReason",
}
_PLACES = {name: module for module, names in _NAMES.items() for name in names.split()}


class _Package(ModuleType):
    """Keeps `cpuid` and `registers` the functions, not the modules of that name, which an import
    would put in their place."""

    def __getattr__(self, name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PLACES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
