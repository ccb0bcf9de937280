"""liblbrcore: the facility for programs without Python."""

import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.library import ROOT, generate, install, library, prefix
from tests.once import needs

EXAMPLE = ROOT / "examples" / "c" / "emulator.c"


def shown(*command: str, **environment: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120,
                          env={**os.environ, **environment}).stdout


def exported(library: Path) -> set[str]:
    return {line.split()[-1].split("@")[0] for line in shown("nm", "-D", str(library)).splitlines()
            if " T " in line}


def test_it_exports_the_header_and_nothing_else():
    text = "".join(path.read_text() for path in (ROOT / "lbrcore" / "include").glob("*.h"))
    declared = set(re.findall(r"LBRCORE_PUBLIC [^;(]*?\b(lbr_\w+)\(", text))
    so = prefix() / "lib" / "liblbrcore.so.1"
    assert exported(so) == declared and len(declared) > 50


#: Of libc: what every freestanding C has, and what perf.data files need.
FEW = {"calloc", "free", "memcpy", "memset", "memcmp", "memmove", "strcmp", "strlen",
       "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}
FILES = {"malloc", "strncpy", "fopen", "fwrite", "fseek", "fclose", "rename", "remove"}


def wanted(path, *flags):
    """Names that an object leaves to others."""
    return {word.split("@")[0] for word in re.findall(
        r" U (\S+)", shown("nm", *flags, "-u", str(path)))}


def test_it_needs_no_python_and_little_of_libc(tmp_path):
    assert wanted(prefix() / "lib/liblbrcore.so.1", "-D") <= FEW | FILES
    assert wanted(prefix() / "lib/liblbrcore.a") <= FEW | FILES
    build = generate(tmp_path)
    shown("gcc", "-O2", "-fPIC", "-DLBR_NO_FILES", f"-I{prefix() / 'include'}", "-c",
          str(build / "lbrcore.c"), "-o", str(tmp_path / "small.o"))
    assert wanted(tmp_path / "small.o") <= FEW


def test_it_is_small(tmp_path):
    so = tmp_path / "stripped.so"
    shown("strip", "-o", str(so), str(prefix() / "lib" / "liblbrcore.so.1"))
    assert so.stat().st_size <= 200_000


def test_results_have_a_text():
    text = library().lbr_strerror
    text.restype = ctypes.c_char_p
    texts = [text(result) for result in range(-12, 1)]
    assert len(set(texts)) == 13 and text(7) == b"not a result of lbrcore"


def test_the_example_runs_with_what_pkg_config_says(tmp_path):
    lib = prefix() / "lib"
    flags = (lib / "pkgconfig" / "lbrcore.pc").read_text()
    assert f"prefix={prefix()}" in flags
    program = tmp_path / "emulator"
    shown("gcc", "-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", str(EXAMPLE),
          f"-I{prefix() / 'include'}", f"-L{lib}", "-llbrcore", "-o", str(program))
    static = tmp_path / "static"
    shown("gcc", "-O2", str(EXAMPLE), f"-I{prefix() / 'include'}", str(lib / "liblbrcore.a"),
          "-static", "-o", str(static))
    shared_out = shown(str(program), LD_LIBRARY_PATH=str(lib))
    assert shared_out == shown(str(static)) and shared_out.startswith("fib(10) = 55\n 0 0x401038")


def recording(path):
    """Instructions of lbr_record."""
    needs("objdump")
    text = shown("objdump", "-d", "--no-show-raw-insn", "--disassemble=lbr_record_unchecked",
                 str(path))
    return text.split("<lbr_record_unchecked>:")[1]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for x86 registers")
def test_a_branch_is_loaded_as_the_caller_stored_it(tmp_path):
    """One load of FROM and TO waits for their two stores: 4.3 instead of 2.1 ns."""
    text = recording(prefix() / "lib/liblbrcore.a")
    assert text.count("\tmov") > 20 and "%xmm" not in text
    source = tmp_path / "plain.c"  # without what the file says to gcc, the search finds it
    source.write_text((prefix().parent / "build/lbrcore.c").read_text().replace(
        "#pragma GCC optimize", "#pragma none"))
    shown("gcc", "-O2", "-w", "-fPIC", "-fvisibility=hidden", f"-I{prefix() / 'include'}", "-c",
          str(source), "-o", str(tmp_path / "plain.o"))
    assert "%xmm" in recording(tmp_path / "plain.o")


@pytest.mark.parametrize("standard", ["-std=c++17", "-std=c++20"])
def test_the_headers_are_c_plus_plus_too(standard, tmp_path):
    source = tmp_path / "use.cpp"
    source.write_text('#include <lbrcore_inline.h>\n'
                      "int use(lbr_state *s, lbr_branch *b) { return lbr_record_inline(s, b); }\n")
    shown("g++", standard, "-Wall", "-Wextra", "-Werror", "-Wno-unused-label", "-c", str(source),
          f"-I{prefix() / 'include'}", "-o", str(tmp_path / "use.o"))
    symbols = shown("nm", "-C", str(tmp_path / "use.o"))
    assert " T use(lbr_state*, lbr_branch*)" in symbols


@pytest.mark.parametrize("target, reason", [
    (["-m32", "-D__x86_64__=0", "-D__SIZEOF_POINTER__=4", "-fsyntax-only"], "64-bit"),
    (["-D__BYTE_ORDER__=4321", "-fsyntax-only"], "little-endian"),
])
def test_other_machines_are_refused_when_compiled(target, reason):
    source = f"-I{ROOT / 'lbrcore' / 'include'}"
    program = "#include <stdint.h>\n#undef UINTPTR_MAX\n#define UINTPTR_MAX %s\n" \
        "#include <lbrcore.h>\n" % ("0xffffffffu" if reason == "64-bit" else "UINT64_MAX")
    flags = [flag for flag in target if flag.startswith(("-D__BYTE", "-fsyntax"))]
    result = subprocess.run(["gcc", "-w", *flags, source, "-x", "c", "-"], input=program,
                            capture_output=True, text=True, timeout=60)
    assert result.returncode and f"lbrcore needs a {reason} machine" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("flags", [
    "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all",
    "-O3 -march=native -flto",
])
def test_the_example_under(flags, tmp_path):
    build = generate(tmp_path / "build")
    usr = install(build, tmp_path / "usr", CFLAGS=flags, LDFLAGS=flags)
    program = tmp_path / "emulator"
    shown("gcc", *flags.split(), str(EXAMPLE), f"-I{usr / 'include'}",
          str(usr / "lib" / "liblbrcore.a"), "-o", str(program))
    assert shown(str(program)).startswith("fib(10) = 55\n")


def test_destdir_is_respected(tmp_path):
    build = shutil.copytree(prefix().parent / "build", tmp_path / "build")  # not compiled again
    (build / "lbrcore.pc").unlink()
    install(build, Path("/opt/lbr"), DESTDIR=str(tmp_path / "root"))
    root = tmp_path / "root/opt/lbr"
    assert (root / "include/lbrcore.h").exists() and (root / "lib/liblbrcore.so").is_symlink()
    assert "prefix=/opt/lbr\n" in (root / "lib/pkgconfig/lbrcore.pc").read_text()


@pytest.mark.slow
def test_cmake_finds_it(tmp_path):
    needs("cmake")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(x C)\nfind_package(lbrcore REQUIRED)\n"
        f"add_executable(emulator {EXAMPLE})\n"
        "target_link_libraries(emulator lbrcore::lbrcore)\n")
    shown("cmake", "-S", str(tmp_path), "-B", str(tmp_path / "b"),
          f"-DCMAKE_PREFIX_PATH={prefix()}")
    shown("cmake", "--build", str(tmp_path / "b"))
    assert shown(str(tmp_path / "b/emulator")).startswith("fib(10) = 55\n")


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["cmake", "meson"])
def test_other_build_systems_build_it_from_its_sources(tool, tmp_path):
    """As a part of another project; the shared library exports what the Makefile's does."""
    needs("cmake" if tool == "cmake" else str(Path(sys.executable).parent / "meson"))
    place = tmp_path / ("lbrcore" if tool == "cmake" else "subprojects/lbrcore")
    build = generate(tmp_path / "build")
    shown("make", "-s", "-C", str(ROOT / "lbrcore/library"), f"SOURCE={build}", "sources")
    shutil.copytree(build / "lbrcore", place)
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(x C)\nadd_subdirectory(lbrcore)\n"
        "add_executable(emulator emulator.c)\n"
        "target_link_libraries(emulator lbrcore::lbrcore)\n")
    (tmp_path / "meson.build").write_text(
        "project('x', 'c')\nlbrcore = subproject('lbrcore').get_variable('lbrcore_dep')\n"
        "executable('emulator', 'emulator.c', dependencies: lbrcore)\n")
    out, path = tmp_path / "out", f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if tool == "cmake":
        shown("cmake", "-S", str(tmp_path), "-B", str(out))
        shown("cmake", "--build", str(out), "--target", "emulator")
    else:
        shown("meson", "setup", str(out), str(tmp_path), PATH=path)
        shown("ninja", "-C", str(out), PATH=path)
    assert shown(str(out / "emulator")).startswith("fib(10) = 55\n")
    [library] = [path for path in out.rglob("*.so.1") if not path.is_symlink()]
    assert exported(library) == exported(prefix() / "lib/liblbrcore.so.1")
