"""A NULL in each place that may not have one: a code, and the processor as it was."""

import ctypes
import re

import pytest

from tests.core.library import ROOT, library
from tests.cpu.library import CODES, Cpu

#: Name -> (what it returns, arguments) of every function with a pointer that must be given.
DECLARED = {
    name: (result.strip(), [" ".join(one.split()) for one in arguments.split(",")])
    for header in ("lbrcore_cpu.h", "lbrcore_perfdata.h")
    for result, name, arguments in re.findall(
        r"^LBRCORE_PUBLIC ([^;(]*?)(lbr_\w+)\(([^;]*)\);",
        (ROOT / "lbrcore/include" / header).read_text(), re.M)
    if re.search(r"\*(?!LBR_OPTIONAL)", re.sub(r"\*\s*LBR_OPTIONAL", "", arguments))
    and name not in ("lbr_cpu_destroy", "lbr_perfdata_discard")}


def test_every_header_is_read():
    assert len(DECLARED) >= 40 and "lbr_cpu_xsaves" in DECLARED and "lbr_wrmsr" in DECLARED


@pytest.mark.parametrize("name", DECLARED)
def test_null_is_refused(name):
    result, arguments = DECLARED[name]
    cpu = Cpu("sapphire-rapids")
    before, room = cpu.image(), ctypes.create_string_buffer(8192)
    function = getattr(library(), name)
    function.restype = ctypes.c_void_p if "*" in result else ctypes.c_int
    wanted = None if "*" in result else 0 if name == "lbr_cpu_records" else CODES["LBR_ENULL"]
    must = [i for i, one in enumerate(arguments) if "*" in one and "LBR_OPTIONAL" not in one]
    for null in must:
        given = [None if i == null else cpu.at if "lbr_cpu *" in one and "**" not in one
                 else room if "*" in one else ctypes.c_uint64(0)
                 for i, one in enumerate(arguments)]
        assert function(*given) == wanted, arguments[null]
        assert cpu.image() == before and not any(room.raw)
