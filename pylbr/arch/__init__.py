"""Facts as rows: branch classes, registers, CPUID leaves, models, LBR formats, choices."""

from pylbr.arch.branches import BRANCH_CLASSES, BranchRow, br_type_name
from pylbr.arch.cpuid import CPUID_FIELDS, CpuidField, cpuid, leaves
from pylbr.arch.features import AmdLbr, ArchLbr, CpuModel, LegacyLbr, Pmu
from pylbr.arch.fields import Field, FieldKind
from pylbr.arch.formats import FORMATS, LbrFormat
from pylbr.arch.models import MODELS, architectural, model
from pylbr.arch.perf_events import EVENTS, FIXED_EVENTS, PerfEvent
from pylbr.arch.registers import REGISTERS, Access, MsrRegister, Register, find, registers
from pylbr.arch.validate import check, objections
from pylbr.arch.vmx import ExitReason

__all__ = [
    "Access", "AmdLbr", "ArchLbr", "BRANCH_CLASSES", "BranchRow", "CPUID_FIELDS", "CpuModel",
    "CpuidField", "EVENTS", "ExitReason", "FIXED_EVENTS", "FORMATS", "Field", "FieldKind",
    "LbrFormat", "LegacyLbr", "MODELS", "MsrRegister", "PerfEvent", "Pmu", "REGISTERS",
    "Register", "architectural", "br_type_name", "check", "cpuid", "find", "leaves",
    "model", "objections", "registers",
]
