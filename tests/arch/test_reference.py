"""The generated reference and the commands that read the rows."""

from pathlib import Path

import pytest

from pylbr.arch import MODELS, REGISTERS
from pylbr.arch.describe import reference
from pylbr.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_reference_is_fresh():
    assert (DOCS / "registers.md").read_text() == reference(), (
        "run: pylbr msr --reference -o docs/registers.md")


def test_every_row_is_in_the_reference():
    text = reference()
    for row in REGISTERS:
        assert f"### {row.name.format('n')}\n" in text


@pytest.mark.parametrize("name", MODELS)
def test_commands_on_every_model(name, capsys):
    assert main(["cpuid", "-m", name]) == 0
    assert main(["msr", "-m", name]) == 0
    assert MODELS[name].name and capsys.readouterr().out


@pytest.mark.parametrize("arguments, code, text", [
    (["msr", "IA32_LBR_CTL", "0x7f0007"], 0, "OTHER_BRANCH 0x1"),
    (["msr", "0x14ce", "0x7f0017"], 1, "bits 0x10: reserved bits must be 0"),
    (["msr", "14CEH"], 0, "IA32_LBR_CTL (14CEH)"),
    (["msr", "c1h"], 0, "IA32_PMC0 (C1H)"),
    (["msr", "473"], 0, "IA32_DEBUGCTL (1D9H)"),
    (["msr", "ia32_lbr_depth", "24"], 1, "the depths are 8, 16, 32"),
    (["msr", "IA32_PERF_CAPABILITIES", "0"], 1, "read-only"),
    (["msr", "-m", "skylake", "MSR_LBR_SELECT"], 0, "EN_CALLSTACK"),
    (["msr", "-m", "nehalem", "MSR_LBR_SELECT", "0x200"], 1, "bits 0x200"),
    (["cpuid", "0x1c"], 0, "eax=4000000b ebx=00000007 ecx=00000007"),
    (["cpuid", "-m", "zen4", "0x80000022", "--raw"], 0, "eax=00000007"),
    (["cpuid", "0xd", "15"], 0, "size of component 15"),
    (["cpuid", "--models"], 0, "sierra-forest"),
])
def test_commands(arguments, code, text, capsys):
    assert main(arguments) == code
    assert text in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments, text", [
    (["msr", "NO_SUCH"], "has no register NO_SUCH"),
    (["msr", "14CE"], "no register 14CE; of the number write 0x14ce or 14CEH"),
    (["msr", "-m", "i486"], "not known"),
    (["msr", "IA32_LBR_CTL", "many"], "no number"),
    (["msr", "IA32_LBR_CTL", "0x10000000000000000"], "64 bits"),
    (["cpuid", "leaf"], "no 32-bit number"),
    (["cpuid", "-m", "i486"], "not known"),
])
def test_mistakes_are_one_line(arguments, text, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1


def test_reference_to_a_file(tmp_path, capsys):
    target = tmp_path / "registers.md"
    assert main(["msr", "--reference", "-o", str(target)]) == 0
    assert target.read_text() == reference()
    assert [p.name for p in tmp_path.iterdir()] == ["registers.md"]
    assert main(["msr", "--reference"]) == 0
    assert capsys.readouterr().out == reference()
