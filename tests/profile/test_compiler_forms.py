"""Profiles for compilers: frames as addr2line has them, and one clear error for what cannot be."""

import random
import re
import shutil
import subprocess

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from pylbr.cli import main
from pylbr.files.elf import ElfImage
from pylbr.files.elf_inlined import Frames
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, BranchSample, SampleType
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.stacks import Comm, Event, Mmap, Samples, StacksMetadata
from pylbr.profile.llvm_profile import base_discriminator, copies

PID = 7
SOURCE = """
static inline int twice(int a) { return a * 2 + (a > 3); }
static inline int thrice(int a) {
    int sum = 0;
    for (int i = 0; i < a; i++) sum += twice(a + i);
    return sum;
}
__attribute__((noinline)) int outer(int a) { return thrice(a) + twice(a - 1); }
int main(int argc, char **argv) { (void)argv; return outer(argc) & 1; }
"""


@pytest.fixture(scope="module", params=["-gdwarf-4", "-gdwarf-5"])
def program(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("inlined")
    (place / "x.c").write_text(SOURCE)
    subprocess.run(["gcc", "-O2", request.param, "-no-pie", "-Wl,--build-id", "-o",
                    place / "program", place / "x.c"], check=True)
    return place / "program"


def test_frames_are_those_of_addr2line(program):
    start, size = ElfImage(program).functions()["outer"]
    frames = Frames(program, [(start, start + size)])
    assert frames.function_at(start).function == "outer"
    addresses = list(range(start, start + size))
    text = subprocess.run(
        ["addr2line", "-ifa", "-e", program, *map(hex, addresses)],
        capture_output=True, text=True, check=True).stdout
    expected = []
    for part in re.split(r"^0x[0-9a-f]+\n", text, flags=re.M)[1:]:
        words = part.split("\n")[:-1]
        lines = [int(re.search(r":(\d+|\?)", line)[1]) for line in words[1::2]]
        expected.append(list(zip(words[::2], lines, strict=True))[::-1])
    found = [[(f.function, f.line) for f in frames.at(address)] for address in addresses]
    assert found == expected
    assert any(len(one) == 3 for one in found)
    assert frames.at(start - 1) == frames.at(start + size) == ()


def recording(binary, path):
    """A perf.data of one loop in `outer`."""
    start, size = ElfImage(binary).functions()["outer"]
    entries = np.zeros(32, BRANCH_ENTRY_DTYPE)
    entries["from"], entries["to"] = start + size - 1, start
    event = Event(
        name="branches:u", period=7, branch_sample_type=int(BranchSample.USER | BranchSample.ANY),
        sample_type=int(SampleType.IP | SampleType.TID | SampleType.BRANCH_STACK))
    samples = Samples.build(np.array([0, 32]), entries, ip=start, pid=PID, tid=PID)
    segment = next(s for s in ElfImage(binary).segments if s.executable)
    page = segment.address & ~0xFFF
    mapping = Mmap(PID, PID, page, 0x1000, segment.offset & ~0xFFF, str(binary))
    write_perf_data(path, (StacksMetadata(events=(event,)),
                           [Comm(PID, PID, "program", True), mapping, samples]))
    return path


@pytest.mark.parametrize("suffix", [".prof.txt", ".pgo"])
def test_no_debug_information_is_an_error(program, suffix, tmp_path, capsys):
    stripped = tmp_path / "program"
    subprocess.run(["strip", "-g", "-o", stripped, program], check=True)
    data, out = recording(stripped, tmp_path / "perf.data"), tmp_path / f"x{suffix}"
    assert main(["convert", str(data), "-o", str(out), "--binary", str(stripped)]) == 2
    error = capsys.readouterr().err
    assert "DWARF" in error and "compile with -g" in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["perf.data", "program"]


def test_damaged_debug_information_is_an_error_or_nothing(program, tmp_path, capsys):
    """Whatever a byte of it is, there is a profile or one line that names the file."""
    with open(program, "rb") as file:
        places = [(s["sh_offset"], s["sh_size"]) for s in ELFFile(file).iter_sections()
                  if s.name.startswith(".debug_")]
    whole, damaged = program.read_bytes(), tmp_path / "program"
    data = recording(program, tmp_path / "perf.data")
    shutil.copy(program, damaged)
    draw, codes = random.Random(3), set()
    for _ in range(40):
        changed = bytearray(whole)
        offset, size = draw.choice(places)
        for _ in range(3):
            changed[offset + draw.randrange(size)] = draw.randrange(256)
        damaged.write_bytes(changed)
        out = tmp_path / "x.prof.txt"
        codes.add(main(["convert", str(data), "-o", str(out), "--binary", str(damaged)]))
        error = capsys.readouterr().err
        assert "Traceback" not in error and ("program" in error) == (not out.exists())
        out.unlink(missing_ok=True)
    assert codes == {0, 2}


def test_discriminators_are_unpacked_as_llvm_packs_them():
    """Base and copies of DiscriminatorTest.cpp's forms, LLVM 19."""
    assert [base_discriminator(value) for value in (0, 2, 0x3E, 0xFE, 1)] == [0, 1, 31, 0x3F, 0]
    assert copies(0) == 1
    # Base 1, a factor of 4 by the next field.
    assert copies(2 | 4 << 8) == 4 and base_discriminator(2 | 4 << 8) == 1
