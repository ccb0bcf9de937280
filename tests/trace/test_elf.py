"""ELF files: how far symbols reach, stubs of the linkage table, segments of every linker."""

import io
import os
import re
import shutil
import subprocess

import pytest

from pylbr.files.elf import ElfImage, read_build_id
from pylbr.files.elf_plt import stub_names
from pylbr.trace.modules import elf_modules

CALLS = """#include <stdlib.h>
#include <stdio.h>
int main(int n, char **v) { printf("%d %ld\\n", atoi(v[0]), strtol(v[0], 0, 8)); }
"""
UNSIZED = """
.text
.globl first
.type first, @function
first: nop; nop
.section .other, "ax", @progbits
nop; nop; nop
.type sized, @function
sized: nop
.size sized, 1
nop
"""


LINKERS = {"-fuse-ld=gold": "ld.gold", "-fuse-ld=lld-14": "ld.lld-14", "-fuse-ld=mold": "mold"}


def compiled(path, text, suffix, *flags, compiler="gcc"):
    linkers = [LINKERS[flag] for flag in flags if flag in LINKERS]
    missing = [program for program in (compiler, *linkers) if shutil.which(program) is None]
    if missing:
        message = f"{missing[0]} is not installed; .ci/peers installs it"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    source = path.with_suffix(suffix)
    source.write_text(text)
    subprocess.run([compiler, *flags, "-o", path, source], check=True)
    return path


def test_a_symbol_without_a_size_ends_with_its_section(tmp_path):
    image = ElfImage(compiled(tmp_path / "x", UNSIZED, ".s", "-nostdlib", "-shared"))
    first, _ = image.functions()["first"]
    sized, size = image.functions()["sized"]
    assert image.function_at(first + 1) == ("first", 1)
    assert image.function_at(first + 2) is None and image.function_at(sized - 1) is None
    assert size == 1 and image.function_at(sized) == ("sized", 0)
    assert image.function_at(sized + 1) is None


def test_stubs_are_named_by_slot_or_number():
    slots, lazy = {0x3000: "puts"}, ["exit", "puts"]
    through = b"\xf3\x0f\x1e\xfa\xff\x25" + (0x3000 - 0x100A).to_bytes(4, "little") + bytes(6)
    pushed = b"\xf3\x0f\x1e\xfa\x68\1\0\0\0\xe9" + bytes(6)
    header = b"\xff\x35" + bytes(4) + b"\xff\x25" + bytes(8)
    code = through + pushed + header + b"\x68\x09\0\0\0"
    assert list(stub_names(code, 0x1000, 16, slots, lazy)) == [
        (0x1000, "puts@plt"), (0x1010, "puts@plt"), (0x1020, ""), (0x1030, ""),
    ]  # fmt: skip


@pytest.mark.peer
@pytest.mark.parametrize("compiler, flags", [
    ("gcc", ["-Wl,-z,lazy"]), ("gcc", ["-Wl,-z,now"]), ("gcc", ["-no-pie", "-Wl,-z,lazy"]),
    ("gcc", ["-fcf-protection", "-Wl,-z,ibtplt"]), ("gcc", ["-fuse-ld=gold", "-Wl,-z,lazy"]),
    ("gcc", ["-Wl,-z,noseparate-code"]), ("clang-14", ["-fuse-ld=lld-14", "-Wl,-z,lazy"]),
    ("clang-14", ["-fuse-ld=mold"]),
])  # fmt: skip
def test_stubs_have_the_names_that_objdump_gives_them(tmp_path, compiler, flags):
    path = compiled(tmp_path / "x", CALLS, ".c", "-O1", *flags, compiler=compiler)
    image = ElfImage(path)
    text = subprocess.run(["objdump", "-d", path], capture_output=True, text=True).stdout
    theirs = {
        int(address, 16): name
        for address, name in re.findall(r"^([0-9a-f]+) <(.*@plt)>:", text, re.MULTILINE)
    }
    assert theirs
    assert {address: image.function_at(address) for address in theirs} == {
        address: (name, 0) for address, name in theirs.items()
    }
    calls = {int(address, 16) for address in re.findall(r"call +([0-9a-f]+) ", text)}
    called = {image.function_at(address) for address in calls if image.in_plt(address)}
    # objdump gives up on some linkers' headers; what is called through the table is named.
    assert {("strtol@plt", 0), ("printf@plt", 0)} <= called


def test_code_comes_before_data_where_segments_share_a_page(tmp_path):
    """lld and ``noseparate-code`` put several segments into one page of the file."""
    path = compiled(tmp_path / "x", CALLS, ".c", "-Wl,-z,noseparate-code")
    image = ElfImage(path)
    start, _ = image.functions()["main"]
    assert image.link_address(image.file_offset(start)) == start
    code = [segment for segment in image.segments if segment.executable]
    assert len(code) == 1 and code[0].address <= start < code[0].address + code[0].size


def test_a_build_id_is_found_in_sections_or_segments(tmp_path):
    path = compiled(tmp_path / "x", CALLS, ".c", "-Wl,--build-id=0x0123456789abcdef")
    for _ in range(2):
        with open(path, "rb") as file:
            assert read_build_id(file) == bytes.fromhex("0123456789abcdef")
        data = bytearray(path.read_bytes())
        data[0x28:0x30], data[0x3C:0x40] = bytes(8), bytes(4)  # no section headers any more
        path.write_bytes(data)
    with pytest.raises(ValueError, match="not a sound ELF file"):
        read_build_id(io.BytesIO(b"text"))


def test_a_relative_module_has_an_absolute_path(tmp_path, monkeypatch):
    path = compiled(tmp_path / "x", CALLS, ".c")
    monkeypatch.chdir(tmp_path)
    (module, *_) = elf_modules("x")
    assert module.path == str(path)
