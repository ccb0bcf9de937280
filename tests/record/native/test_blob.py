"""The code that runs inside recorded programs, as it was built."""

import re
import subprocess

import pytest
from elftools.elf.elffile import ELFFile

from pylbr.errors import UnsupportedFeature
from pylbr.record.native.blob import blob, build_blob
from tests.record.conftest import need

#: Registers whose content is the program's: nothing but GPRs may be touched.
FOREIGN = re.compile(r"%(?:[xyz]mm\d|mm\d|k[0-7]|st\b|tmm\d|[fg]s)")
#: x87, MMX and the like that name no register.
WORDS = re.compile(r"^f[a-z0-9]+$|^emms|^v?zero|^ldmxcsr|^fx|^xrstor$|^xsave$")


@pytest.fixture(scope="module")
def path():
    try:
        return build_blob()
    except UnsupportedFeature as error:
        need(False, str(error))


def instructions(path):
    listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], check=True,
                             capture_output=True, text=True).stdout
    return [line.split("\t")[1].strip() for line in listing.splitlines() if "\t" in line]


def test_only_general_registers_are_used(path):
    listed = instructions(path)
    assert len(listed) > 1000
    assert not [text for text in listed if FOREIGN.search(text) or WORDS.match(text.split()[0])]


def test_vector_registers_are_saved_and_loaded_once(path):
    words = [text.split()[0] for text in instructions(path)]
    assert words.count("xsave64") == 1 and words.count("xrstor64") == 1


def test_system_calls_are_those_that_are_stated(path):
    """rt_sigreturn, twice; rt_sigaction and tkill where fault.c and sigaction.c need them."""
    listed = instructions(path)
    places = [i for i, text in enumerate(listed) if text.split()[0] == "syscall"]
    numbers = [re.fullmatch(r"mov +\$0x(\w+),%eax", listed[i - 1])[1] for i in places]
    assert sorted(int(number, 16) for number in numbers) == [13, 15, 15, 186, 200]


def test_nothing_is_relocated_or_imported(path):
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert not [s.name for s in elf.iter_sections() if s["sh_type"] in ("SHT_RELA", "SHT_REL")]
        table = elf.get_section_by_name(".symtab")
        assert not [s.name for s in table.iter_symbols() if s.name and s["st_shndx"] == "SHN_UNDEF"]
        assert not [s for s in elf.iter_segments() if s["p_type"] in ("PT_INTERP", "PT_TLS")]


def test_code_and_data_share_no_page(path):
    found = blob()
    assert found.symbols["handlers"] < found.data <= found.symbols["state"]
    assert len(found.image) % 4096 == found.data % 4096 == 0
