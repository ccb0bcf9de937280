"""Mappings of code in a recording: what the kernel makes of the ELF file, for every linker."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from pylbr import trace
from pylbr.perf.stacks import Mmap
from tests.record.conftest import PROGRAMS, need
from tests.record.linkers import LINKERS, library, link

pytestmark = pytest.mark.peer

PAGE = 4096


def executable_segments(path, bias):
    """{(start, length, file offset)} of a file's segments with code, as readelf lists them."""
    listed = subprocess.run(["readelf", "-lW", path], check=True, capture_output=True, text=True)
    found = set()
    for line in listed.stdout.splitlines():
        row = re.match(r"\s+LOAD\s+(\S+) (\S+) \S+ (\S+) \S+ (R?W?) ?W? ?E", line)
        if row:
            offset, address, size = (int(word, 16) for word in row.groups()[:3])
            skew = address % PAGE
            found.add((bias + address - skew, -(-(size + skew) // PAGE) * PAGE, offset - skew))
    assert found
    return found


def code_mappings(path):
    """{file: [(start, length, file offset), ...]} of a recording, all as they are written."""
    found = {}
    with trace.open_stacks(path) as stacks:
        for record in stacks:
            if isinstance(record, Mmap):
                assert record.prot == 5  # r-x
                row = record.start, record.length, record.file_offset
                found.setdefault(record.path, []).append(row)
    return found


def objects(text, program):
    """{file: bias} as the loader reports; the program's own has no name there, the vDSO no file."""
    found = {}
    for bias, name in re.findall(r"^object (\S+) (.*)$", text, re.M):
        path = Path(name or program).resolve()
        if path.is_file():
            found[str(path)] = int(bias, 16)
    return found


def kernels_mappings(text):
    """[(file, start, length, file offset)] of the executable lines of /proc/self/maps."""
    rows = re.findall(r"^(\w+)-(\w+) r-xp (\w+) \S+ \d+ +(/.*)$", text, re.M)
    return [(path, int(low, 16), int(high, 16) - int(low, 16), int(offset, 16))
            for low, high, offset, path in rows]


@pytest.mark.parametrize("linker", LINKERS)
def test_one_mapping_for_each_segment_with_code(linker, pylbr_record, tmp_path):
    """Program, loader, libraries and what dlopen maps: where the loader reports them."""
    program = link(linker, tmp_path / "objects", PROGRAMS / "objects.c", "-ldl")
    static = "static" in linker
    opened = [] if static else [library(linker, tmp_path / "opened.so")]
    run = pylbr_record(program, *opened, full=False, options=("-c", "1009"))
    told = objects(run.result.stdout.decode(), program)
    assert len(told) == (1 if static else 4)
    expected = {path: sorted(executable_segments(path, bias)) for path, bias in told.items()}
    assert {p: sorted(rows) for p, rows in code_mappings(run.path).items()} == expected


@pytest.mark.parametrize("linker", LINKERS)
def test_the_kernel_maps_the_same(linker, tmp_path):
    """The oracle's own oracle: /proc/self/maps of the native process, less the place of each."""
    program = link(linker, tmp_path / "objects", PROGRAMS / "objects.c", "-ldl")
    opened = [] if "static" in linker else [library(linker, tmp_path / "opened.so")]
    text = subprocess.run([program, *opened], capture_output=True, text=True).stdout
    told = objects(text, program)
    kernels = kernels_mappings(text)
    for path, bias in told.items():
        mine = {row[1:] for row in kernels if row[0] == path}
        assert mine == executable_segments(path, bias), path


def address_of(path, name):
    listed = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout
    found = [line.split()[0] for line in listed.splitlines() if line.endswith(name)]
    return int(found[0], 16)


def test_rust(pylbr_record, tmp_path):
    need(shutil.which("rustc"), "no rustc; .ci/peers installs it")
    program = tmp_path / "objects"
    subprocess.run(["rustc", "-O", "-o", program, PROGRAMS / "objects.rs"], check=True,
                   capture_output=True, timeout=120)
    run = pylbr_record(program, full=False, options=("-c", "1009"))
    at = int(re.match(rb"work (\S+)", run.result.stdout)[1], 16)
    listed = subprocess.run(["nm", "-C", program], capture_output=True, text=True).stdout
    bias = at - int(re.search(r"^(\w+) t objects::work", listed, re.M)[1], 16)
    assert set(code_mappings(run.path)[str(program)]) == executable_segments(program, bias)


def test_go(pylbr_record, tmp_path):
    need(shutil.which("go"), "no go; .ci/peers installs it")
    program = tmp_path / "objects"
    subprocess.run(
        ["go", "build", "-o", program, PROGRAMS / "objects.go"], check=True, capture_output=True,
        timeout=240, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "GO111MODULE": "off",
                          "GOCACHE": str(tmp_path / "cache"), "GOTOOLCHAIN": "local"},
    )  # fmt: skip
    run = pylbr_record(program, full=False, options=("-c", "1009"))
    assert set(code_mappings(run.path)[str(program)]) == executable_segments(program, 0)


def test_optimised_by_bolt(pylbr_record, tmp_path):
    """BOLT adds a segment of its own."""
    bolt = need_file("/usr/lib/llvm-19/bin/llvm-bolt")
    source = link("gnu", tmp_path / "source", PROGRAMS / "objects.c", "-ldl", "-Wl,--emit-relocs")
    program = tmp_path / "objects"
    subprocess.run([bolt, source, "-o", program, "--use-old-text=0"], check=True,
                   capture_output=True, timeout=120)
    run = pylbr_record(program, full=False, options=("-c", "1009"))
    (bias,) = [v for k, v in objects(run.result.stdout.decode(), program).items()
               if k == str(program)]
    expected = executable_segments(program, bias)
    with open(program, "rb") as file:
        code = [s for s in ELFFile(file).iter_segments("PT_LOAD") if s.header.p_flags & 1]
    assert len(code) > 1
    assert set(code_mappings(run.path)[str(program)]) == expected


def need_file(path):
    need(Path(path).exists(), f"no {path}; .ci/peers installs it")
    return path
