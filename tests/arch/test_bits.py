"""Masks and numbers: generated from the rows, equal to the manual's, and the core's equal them."""

import re
from pathlib import Path

import pytest

from lbrcore.events import Unit
from pylbr.arch import bits, generate
from pylbr.record.constants import Counted
from tests import manual

ROOT = Path(__file__).resolve().parents[2]
HEADER = (ROOT / "lbrcore/include/lbrcore.h").read_text()
MANUAL = {name: value for name, value in vars(manual).items() if name.isupper()}


@pytest.mark.parametrize("name, made", [("bits.py", generate.python), ("bits.pxd", generate.pxd)])
def test_the_generated_files_are_fresh(name, made):
    assert (ROOT / "pylbr/arch" / name).read_text() == made(), "run: python -m pylbr.arch.generate"


@pytest.mark.parametrize("name", [name for name in MANUAL if not name.startswith("UNIT_")
                                  and name != "MSR_LASTBRANCH_TOS"])
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
    wire = (ROOT / "pylbr/record/plugin/wire.h").read_text()
    for counted in Counted:
        assert re.search(rf"\bWIRE_{counted.name} = {counted.value}\b", wire)
        assert units.get(counted.name, counted.value) == counted.value
