"""`pylbr/x86/decode.h` for Python: compiled as the recorder compiles it, on arrays."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

import lbrcore
from pylbr import x86

HERE = Path(__file__).parent
#: As for code inside a recorded program: no libc, no vector registers.
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-ffreestanding",
         "-mgeneral-regs-only", f"-I{lbrcore.get_include()}", f"-I{x86.get_include()}")
_C_TYPES = {"uint8_t": "u1", "uint32_t": "<u4", "int64_t": "<i8"}


def insn_dtype() -> np.dtype:
    """`struct x86_insn`, read off its declaration."""
    text = Path(x86.get_include(), "insn.h").read_text()
    body = re.search(r"struct x86_insn \{(.*?)\n\};", text, re.S).group(1)
    members = re.findall(r"^    (\w+) (\w+);", body, re.M)
    return np.dtype([(name, _C_TYPES[kind]) for kind, name in members], align=True)


@lru_cache
def constants() -> dict[str, int]:
    """The enumerations of insn.h and lbrcore.h, evaluated by the compiler."""
    own = Path(x86.get_include(), "insn.h").read_text()
    classes = re.search(r"enum lbr_class \{.*?\}",
                        Path(lbrcore.get_include(), "lbrcore.h").read_text(), re.S).group()
    code = re.sub(r"/\*.*?\*/|^#(?!define).*?$", "", own + classes, flags=re.S | re.M)
    names = sorted(set(re.findall(r"\b(?:X86|LBR)_[A-Z0-9_]+", code)))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "names.c")
        rows = "".join(f'    printf("{name} %ld\\n", (long){name});\n' for name in names)
        source.write_text('#include <stdio.h>\n#include "lbrcore.h"\n#include "insn.h"\n'
                          f"int main(void) {{\n{rows}}}\n")
        program = Path(folder, "names")
        subprocess.run(["gcc", *FLAGS[-2:], str(source), "-o", str(program)], check=True)
        said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in said.splitlines())}


@lru_cache
def compiled(source: str) -> ctypes.CDLL:
    """A C file of this directory as a library; only decode_many.c does without libc."""
    freestanding = FLAGS if source == "decode_many.c" else [
        flag for flag in FLAGS if flag not in ("-ffreestanding", "-mgeneral-regs-only")]
    with tempfile.TemporaryDirectory(prefix="pylbr-x86-") as folder:
        path = Path(folder, "library.so")
        subprocess.run(["gcc", *freestanding, "-shared", "-fPIC", "-o", str(path),
                        str(HERE / source)], check=True)
        return ctypes.CDLL(str(path))


@lru_cache
def _library() -> ctypes.CDLL:
    library = compiled("decode_many.c")
    library.insn_size.restype = ctypes.c_size_t
    library.decode_many.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    library.decode_many.restype = None
    assert library.insn_size() == insn_dtype().itemsize
    return library


def decode(strings: np.ndarray, available: int = 15) -> np.ndarray:
    """(n,) `insn_dtype` of (n, 16) uint8 byte strings."""
    strings = np.ascontiguousarray(strings, np.uint8)
    out = np.zeros(len(strings), insn_dtype())
    _library().decode_many(strings.ctypes.data, len(strings), available, out.ctypes.data)
    return out


def decode_one(text: str) -> np.void:
    """Of bytes in hexadecimal, which need not be 15."""
    code = bytes.fromhex(text)
    string = np.zeros((1, 16), np.uint8)
    string[0, :len(code)] = list(code)
    return decode(string, min(len(code), 15))[0]
