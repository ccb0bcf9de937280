"""The decoder beside capstone on files of this machine; `tests.x86.sweep` does all of them."""

import zlib

import pytest

from tests.x86.sweep import DEBIAN, DIFFERENCES, KINDS, Sweep, code_sections, files

ENOUGH = 20_000_000  # bytes of code


@pytest.mark.slow
def test_files_of_this_machine():
    sweep, seen = Sweep(), 0
    for path in sorted(files(list(DEBIAN)), key=lambda path: zlib.crc32(bytes(path))):
        for name, address, body in code_sections(path):
            found = [row for row in sweep.over(body, address) if row[0] in DIFFERENCES]
            assert not found, (path, name, found[:3])
            seen += len(body)
        if seen > ENOUGH:
            break
    counts = dict(zip(KINDS, sweep.counts.tolist(), strict=True))
    assert counts["same"] > 100_000
    refused = counts["refused: undefined"] + counts["refused: ambiguous"] + counts["alone"]
    assert refused < counts["same"] / 5_000, counts


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
