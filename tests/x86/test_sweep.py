"""The decoder beside capstone on files of this machine; `tests.x86.sweep` does all of them."""

import subprocess
import zlib

import pytest
from elftools.elf.elffile import ELFFile

from tests.x86.sweep import (
    DEBIAN,
    DIFFERENCES,
    KINDS,
    Sweep,
    code_sections,
    documented,
    files,
    functions,
    pieces,
)

ENOUGH = 20_000_000  # bytes of code


@pytest.mark.slow  # 20 MB of code through two decoders
def test_files_of_this_machine():
    """Nothing differs, and functions contain nothing refused but what is documented."""
    sweep, seen, covered = Sweep(), 0, 0
    for path in sorted(files(list(DEBIAN)), key=lambda path: zlib.crc32(bytes(path))):
        for name, address, body, known in code_sections(path):
            for in_function, at, piece in pieces(address, body, known):
                wrong = [row for row in sweep.over(piece, at) if row[0] in DIFFERENCES
                         or in_function and not documented(*row[:2])]
                assert not wrong, (path, name, hex(at), wrong[:3])
                covered += len(piece) * in_function
            seen += len(body)
        if seen > ENOUGH:
            break
    assert sweep.counts[KINDS.index("same")] > 100_000
    assert covered > seen / 4


@pytest.mark.parametrize("kind, code, is_documented", [
    ("refused: undefined", "8f e8 78 c2 ec 0e", True),        # XOP
    ("refused: undefined", "f3 0f a7 c8", True),              # PadLock
    ("refused: undefined", "67 0f b9 40 16", True),           # UD1
    ("refused: ambiguous", "66 e9 00 00 00 00", True),
    ("alone", "0f 01 e8", True),                              # SERIALIZE
    ("refused: undefined", "8e c8", False),                   # MOV to CS: data
    ("refused: ambiguous", "4f 47 41 4d 33 85", False),       # REX before REX: data
    ("refused: ambiguous", "48 48 8b 00", False),
    ("alone", "06", False),                                   # neither iced-x86 nor the decoder
])
def test_what_a_function_may_contain_is_told_from_data(kind, code, is_documented):
    assert documented(kind, bytes.fromhex(code)) == is_documented


def test_functions_are_those_of_the_unwind_table(tmp_path):
    (tmp_path / "a.c").write_text("int f(int x) { return x + 1; } int main(void) { return f(2); }")
    (tmp_path / "b.s").write_text("table: .ascii \"GAMMA\"\n.section .note.GNU-stack\n")
    program = tmp_path / "program"
    subprocess.run(["gcc", "-O0", "-o", program, tmp_path / "a.c", tmp_path / "b.s"], check=True)
    with program.open("rb") as file:
        elf = ELFFile(file)
        at = {symbol.name: (symbol["st_value"], symbol["st_size"])
              for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
        starts = dict(functions(elf).tolist())
    for name in ("f", "main"):
        assert starts[at[name][0]] == sum(at[name])
    [text] = [section for section in code_sections(program) if section[0] == ".text"]
    cut = list(pieces(*text[1:]))
    assert b"".join(body for _, _, body in cut) == text[2]
    [data] = [body for inside, start, body in cut if start <= at["table"][0] < start + len(body)
              and not inside]
    assert b"GAMMA" in data


@pytest.mark.parametrize("code, kinds", [
    ("90 c3 e8 00 00 00 00 ff 25 00 00 00 00 ff 28 0f 05", ["same"] * 6),
    ("8f e9 78 d7 ed", ["refused: undefined"]),          # XOP
    ("66 e9 00 00 00 00", ["refused: ambiguous"]),
    ("62 f5 7c 48 58 c1", ["alone"]),                    # AVX512-FP16
])
def test_a_finding_is_reported_as_what_it_is(code, kinds):
    sweep = Sweep()
    sweep.over(bytes.fromhex(code) + b"\x90" * 15)
    counts = dict(zip(KINDS, sweep.counts.tolist(), strict=True))
    for kind in set(kinds) - {"same"}:
        assert counts[kind] == kinds.count(kind)
    assert counts["same"] >= kinds.count("same")
