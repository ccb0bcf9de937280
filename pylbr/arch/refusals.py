"""Texts of refusals that depend on the model, for Python and for liblbrcore's tables."""

from __future__ import annotations

from pylbr.arch.features import CpuModel

__all__ = ["depth_rule", "format_rule", "no_such_register"]


def no_such_register(model: CpuModel) -> str:
    """Of an access to an MSR that `model` lacks."""
    return f"{model.name} has no such register"


def depth_rule(model: CpuModel) -> str:
    """Of a write of IA32_LBR_DEPTH."""
    return f"the depths are {', '.join(map(str, model.lbr.depths))}"


def format_rule(model: CpuModel) -> str:
    """Of a write of IA32_PERF_CAPABILITIES by the host."""
    return f"LBR_FMT must be 0 or {model.lbr_format:#x}"
