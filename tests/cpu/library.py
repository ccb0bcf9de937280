"""The processor of liblbrcore by ctypes, with the face of `pylbr.cpu.Processor`."""

import ctypes
import re

import numpy as np

from lbrcore import BRANCH_DTYPE, ENTRY_DTYPE
from tests.core.library import ROOT, library

HEADER = (ROOT / "lbrcore/include/lbrcore.h").read_text()
CODES = {name: int(value) for name, value in re.findall(
    r"(LBR_\w+) = (-?\d+)", re.search(r"enum lbr_result {(.*?)};", HEADER, re.S)[1])}
ABI = int(re.search(r"LBRCORE_ABI_VERSION (\d+)u", HEADER)[1])
OK, GP, PMI = 0, CODES["LBR_GP"], 1
U32, U64, SIZE = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t


class Refused(Exception):
    """#GP: rule and bits, as `GeneralProtection` has them."""

    def __init__(self, rule, bits):
        super().__init__(rule)
        self.rule, self.bits = rule, bits


class Fault(ctypes.Structure):
    """struct lbr_fault."""
    _fields_ = [("rule", ctypes.c_char_p), ("bits", U64)]


class Failed(Exception):
    """Another result than LBR_OK."""


def cpu_size():
    """sizeof(lbr_cpu), found as a program that was compiled wrongly would: by trying."""
    made = ctypes.c_void_p()
    for size in range(512, 8192, 8):
        result = library().lbr_cpu_open(ctypes.byref(made), b"zen4", SIZE(size), ABI)
        if result == OK:
            library().lbr_cpu_destroy(made)
            return size
        assert result == CODES["LBR_ESIZE"] and not made.value
    raise AssertionError("no size fits")


class Cpu:
    """lbr_cpu."""

    size, at = 0, None

    def __init__(self, name):
        Cpu.size = Cpu.size or cpu_size()
        self.lib, self.at = library(), ctypes.c_void_p()
        self.check(self.lib.lbr_cpu_open(ctypes.byref(self.at), name.encode(), SIZE(Cpu.size),
                                         ABI))
        self.pmis = 0

    def __del__(self):
        if self.at is not None:
            self.lib.lbr_cpu_destroy(self.at)

    @staticmethod
    def check(result):
        if result not in (OK, PMI):
            raise Failed(next(name for name, code in CODES.items() if code == result))
        return result

    def image(self):
        return ctypes.string_at(self.at, Cpu.size)

    def _judge(self, result, fault):
        if result == GP:
            raise Refused(fault.rule.decode(), fault.bits)
        self.check(result)

    def rdmsr(self, index, host=False):
        value, fault = U64(0x5A5A), Fault()
        read = self.lib.lbr_host_rdmsr if host else self.lib.lbr_rdmsr
        result = read(self.at, U32(index), ctypes.byref(value), ctypes.byref(fault))
        assert result == OK or value.value == 0x5A5A
        self._judge(result, fault)
        return value.value

    def wrmsr(self, index, value, host=False):
        fault = Fault()
        write = self.lib.lbr_host_wrmsr if host else self.lib.lbr_wrmsr
        self._judge(write(self.at, U32(index), U64(value), ctypes.byref(fault)), fault)

    def xsetbv(self, value):
        fault = Fault()
        self._judge(self.lib.lbr_xsetbv(self.at, U64(value), ctypes.byref(fault)), fault)

    def cpuid(self, leaf, subleaf=0):
        out = (U32 * 4)()
        self.check(self.lib.lbr_cpuid(self.at, U32(leaf), U32(subleaf), out))
        return tuple(out)

    def record(self, branches):
        """Where the batch ended."""
        branches = np.ascontiguousarray(branches)
        assert branches.dtype == BRANCH_DTYPE
        taken = SIZE()
        result = self.check(self.lib.lbr_cpu_record(
            self.at, ctypes.c_void_p(branches.ctypes.data), SIZE(len(branches)),
            ctypes.byref(taken)))
        self.pmis += result == PMI
        return taken.value

    def branch(self, branches):
        """One branch after the other."""
        for i in range(len(branches)):
            self.pmis += self.check(self.lib.lbr_cpu_branch(
                self.at, ctypes.c_void_p(branches.ctypes.data + 32 * i))) == PMI

    def retire(self, instructions, cycles, cpl):
        self.pmis += self.check(self.lib.lbr_cpu_retire(
            self.at, U32(instructions), U32(cycles), cpl)) == PMI

    def records(self):
        out = np.zeros(32, ENTRY_DTYPE)
        return out[:self.lib.lbr_cpu_records(self.at, ctypes.c_void_p(out.ctypes.data))]

    def event(self, name, *arguments):
        return self.check(getattr(self.lib, f"lbr_cpu_{name}")(self.at, *arguments))

    def save(self):
        room, used = ctypes.create_string_buffer(4096), SIZE()
        self.check(self.lib.lbr_cpu_save(self.at, room, SIZE(4096), ctypes.byref(used)))
        return room.raw[:used.value]

    def load(self, data):
        self.check(self.lib.lbr_cpu_load(self.at, bytes(data), SIZE(len(data))))
