"""Masks and numbers: generated from the rows, equal to the manual's, and the core's equal them."""

import re
from pathlib import Path

import pytest

from lbrcore import CTL_ALL, SELECT_ALL, SELECT_ALL_CALL_STACK, BranchFlag
from lbrcore.events import Unit
from pylbr.arch import bits, generate
from pylbr.record.wire_numbers import Counted
from tests import manual

ROOT = Path(__file__).resolve().parents[2]
HEADER = (ROOT / "lbrcore/include/lbrcore.h").read_text()
MANUAL = {name: value for name, value in vars(manual).items() if name.isupper()}
#: Not of the rows: lbrcore's units, perf's bits, a register that legacy models alone have, a value.
OTHERS = {"MSR_LASTBRANCH_TOS", "RECORD_ALL", "PERF_MISPRED", "PERF_PREDICTED", "PERF_CYCLES",
          *(name for name in MANUAL if name.startswith("UNIT_"))}


@pytest.mark.parametrize("name, made", [("bits.py", generate.python), ("bits.pxd", generate.pxd)])
def test_the_generated_files_are_fresh(name, made):
    assert (ROOT / "pylbr/arch" / name).read_text() == made(), "run: python -m pylbr.arch.generate"


@pytest.mark.parametrize("name", sorted(MANUAL.keys() - OTHERS))
def test_the_rows_have_the_numbers_of_the_manual(name):
    assert getattr(bits, name) == MANUAL[name]


def test_no_name_stands_for_two_values():
    seen = {}
    for name, value, _ in generate.constants():
        assert seen.setdefault(name, value) == value, name
    assert all(getattr(bits, name) == value for name, value in seen.items())


def enumerators(enum):
    """Name -> value of an enum in lbrcore.h."""
    body = re.search(rf"enum {enum} {{(.*?)}};", HEADER, re.S).group(1)
    known = {}
    for entry in re.sub(r"/\*.*?\*/", "", body, flags=re.S).split(","):
        name, value = (part.strip() for part in entry.split("="))
        known[name] = sum(known[part.strip()] for part in value.split("|")) if "|" in value \
            else int(value, 0)
    return known


@pytest.mark.parametrize("enum", ["lbr_ctl", "lbr_select"])
def test_the_core_has_the_bits_of_the_rows(enum):
    known = enumerators(enum)
    of_rows = {f"LBR_{name}": value for name, value in vars(bits).items()
               if name.startswith(f"{enum.removeprefix('lbr_').upper()}_")}
    everything = known.pop(f"{enum.upper()}_ALL")
    assert known == of_rows
    assert everything == sum(set(known.values()) - {manual.CTL_CPL, manual.CTL_CLASSES})


def test_one_numbering_of_units():
    """The core's, the counters', and the first of what the recorder's period counts."""
    units = {"BRANCHES": manual.UNIT_BRANCHES, "INSTRUCTIONS": manual.UNIT_INSTRUCTIONS,
             "CYCLES": manual.UNIT_CYCLES}
    assert {unit.name: unit.value for unit in Unit} == units
    assert enumerators("lbr_unit") == {f"LBR_UNIT_{name}": n for name, n in units.items()}
    counted = {one.name: one.value for one in Counted}
    assert units.items() <= counted.items() and len(set(counted.values())) == len(counted)


def test_the_core_has_the_bits_of_info_and_python_those_of_the_core():
    defined = dict(re.findall(r"#define LBR_(INFO_\w+) (\S.*)", HEADER))
    for name in ("CYC_CNT_VALID", "TSX_ABORT", "IN_TSX", "MISPRED"):
        bit = re.fullmatch(r"\(1ull << (\d+)\)", defined[f"INFO_{name}"])
        assert 1 << int(bit[1]) == getattr(bits, f"INFO_{name}")
    assert int(defined["INFO_CYC_CNT"].rstrip("u"), 0) == bits.INFO_CYC_CNT
    assert 0xFFFF << int(defined["INFO_PMCN_CNT_SHIFT"]) == bits.INFO_PMCN_CNT
    assert 0xF << int(defined["INFO_BR_TYPE_SHIFT"]) == bits.INFO_BR_TYPE
    assert enumerators("lbr_ctl")["LBR_CTL_ALL"] == CTL_ALL
    assert enumerators("lbr_select")["LBR_SELECT_ALL"] == SELECT_ALL_CALL_STACK
    assert SELECT_ALL == SELECT_ALL_CALL_STACK & ~bits.SELECT_EN_CALLSTACK
    assert all(flag << 61 == getattr(bits, f"INFO_{flag.name}") for flag in BranchFlag)
