"""The shared memory's layout reaches Python from wire.h, all of it."""

import re
import shutil
import subprocess

import pytest

import lbrcore
from pylbr.record import _wire
from pylbr.record.wire import Wire, WireOptions
from tests.conftest import ROOT
from tests.record.conftest import need

HEADER = ROOT / "pylbr/record/plugin/wire.h"


def members(structure):
    """Names of a C structure's members, as the text has them."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    body = re.search(rf"typedef struct {structure} {{(.*?)}}", text, re.S)[1]
    return [name for line in re.findall(r"\w+ ([\w, \[\]]+);", body)
            for name in re.findall(r"\w+(?=[,\[]|$)", line) if not name.isdigit()]


@pytest.mark.parametrize(("structure", "dtype", "renamed"), [
    ("wire_header", _wire.HEADER_DTYPE, {}), ("wire_block", _wire.BLOCK_DTYPE, {"class": "cls"}),
])
def test_layout_is_the_compilers(structure, dtype, renamed, tmp_path):
    need(shutil.which("gcc"), "no gcc")
    listed = {renamed.get(name, name): name for name in dtype.names}
    assert set(members(structure)) - {"reserved"} == set(listed)
    lines = "".join(
        f'printf("%zu %zu\\n", offsetof({structure}, {member}), sizeof(x.{member}));\n'
        for member in listed
    )
    source, program = tmp_path / "x.c", tmp_path / "x"
    source.write_text(
        f'#include <stddef.h>\n#include <stdio.h>\n#include "{HEADER}"\n'
        f'int main(void) {{ {structure} x; printf("%zu\\n", sizeof x);\n{lines} }}\n'
    )
    subprocess.run(["gcc", f"-I{lbrcore.get_include()}", "-o", program, source], check=True)
    size, *rows = subprocess.run([program], capture_output=True, text=True).stdout.splitlines()
    assert dtype.itemsize == int(size)
    for name, row in zip(listed.values(), rows, strict=True):
        kind, offset = dtype.fields[name][:2]
        assert f"{offset} {kind.itemsize}" == row, name


def test_header_says_what_was_asked_for():
    options = WireOptions(full=True, period=77, accept=5, depth=16, slots=8)
    with Wire(options) as wire:
        head = Wire.header_of(wire.memory)
        assert (head["mode"], head["period"], head["accept"]) == (_wire.FULL, 77, 5)
        assert head["ring_words"] % head["chunk_words"] == 0
        places = [int(head[f"{name}_at"]) for name in ("slots", "blocks", "buckets", "lengths",
                                                       "rings", "messages")]
        assert places == sorted(places) and places[0] >= _wire.HEADER_DTYPE.itemsize
        assert places[-1] < head["size"] == len(wire.memory)
        del head
