"""What runs in a recorded program is linked without a C library, however it is compiled."""

import subprocess

import pytest

from pylbr.record.parts import BLOB, FULL, compiler

#: As gcc 16 does by itself, and others may: copies and fills by a call.
CALLS = ["-mmemcpy-strategy=libcall:-1:noalign", "-mmemset-strategy=libcall:-1:noalign"]


@pytest.mark.parametrize("part", [BLOB, FULL], ids=lambda part: part.name)
@pytest.mark.parametrize("flags", [["-O0"], ["-O1"], ["-Os"], ["-O3"], CALLS], ids=" ".join)
def test_it_needs_nothing(part, flags, tmp_path):
    output = tmp_path / part.name
    subprocess.run(part.command(compiler(), output, *flags), check=True, timeout=120)
    assert not subprocess.run(["nm", "-u", str(output)], check=True, capture_output=True).stdout
