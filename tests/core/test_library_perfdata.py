"""perf.data files of liblbrcore: byte for byte what Python's writer writes, and perf reads them."""

import ctypes
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import ENTRY_DTYPE
from pylbr.perf import abi
from pylbr.perf.batch import SampleBatch
from pylbr.perf.data_writer import PerfDataWriter
from pylbr.perf.entries import perf_samples
from pylbr.perf.stacks import Comm, Event, Mmap, StacksMetadata
from tests.core.library import ROOT, library
from tests.cpu.library import CODES
from tests.once import needs

U32, U64 = ctypes.c_uint32, ctypes.c_uint64
ANY_USER = int(abi.BranchSample.ANY | abi.BranchSample.USER)
INDEX, LOGGED = int(abi.BranchSample.HW_INDEX), int(abi.BranchSample.COUNTERS)


class LibraryEvent(ctypes.Structure):
    """struct lbr_perfdata_event."""
    _fields_ = [("name", ctypes.c_char_p), ("type", U32), ("reserved", U32), ("config", U64),
                ("period", U64), ("branch_sample_type", U64)]


class Head(ctypes.Structure):
    """struct lbr_perfdata_sample_head."""
    _fields_ = [("ip", U64), ("time", U64), ("period", U64), ("pid", U32), ("tid", U32),
                ("cpu", U32), ("kernel", U32)]


class File:
    """lbr_perfdata."""

    def __init__(self, path, branches=ANY_USER):
        self.at = ctypes.c_void_p(1)
        event = LibraryEvent(b"branches", 4, 0, 0xC4, 1000, branches)
        self.opened = library().lbr_perfdata_open(
            ctypes.byref(self.at), os.fsencode(path), ctypes.byref(event))

    def mmap(self, pid, start, length, offset, path):
        return library().lbr_perfdata_mmap(self.at, U32(pid), U32(pid), U64(5), U64(start),
                                           U64(length), U64(offset), os.fsencode(path))

    def comm(self, pid, name):
        return library().lbr_perfdata_comm(self.at, U32(pid), U32(pid), U64(3), name)

    def sample(self, head, entries):
        return library().lbr_perfdata_sample(
            self.at, ctypes.byref(head), ctypes.c_void_p(entries.ctypes.data), U32(len(entries)))

    def close(self):
        return library().lbr_perfdata_close(self.at)


def records():
    address = st.sampled_from([0, 2**64 - 1, 2**63]) | st.integers(0, 2**64 - 1)
    info = st.integers(0, 2**64 - 1)
    entry = st.tuples(address, address, info)
    return st.lists(st.tuples(st.integers(0, 2**64 - 1), st.lists(entry, max_size=32),
                              st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1)), max_size=6)


@settings(max_examples=50)
@given(records(), st.sampled_from([
    ANY_USER, ANY_USER | 2, 0x808, 8, ANY_USER | INDEX, ANY_USER | LOGGED,
    ANY_USER | INDEX | LOGGED]),
       st.text("ab/\u00e4", max_size=70), st.binary(max_size=20).filter(lambda b: 0 not in b))
def test_the_file_is_the_one_that_python_writes(tmp_path_factory, samples, branches, path, name):
    place = tmp_path_factory.mktemp("perfdata")
    file = File(place / "ours", branches)
    assert file.opened == 0 and not (place / "ours").exists()
    assert file.comm(7, name) == file.mmap(7, 0x401000, 0x2000, 0x1000, path) == 0
    kind = int(abi.SampleType.IP | abi.SampleType.TID | abi.SampleType.TIME | abi.SampleType.CPU
               | abi.SampleType.PERIOD | abi.SampleType.BRANCH_STACK)
    event = Event("branches", 4, 0xC4, 1000, kind, branch_sample_type=branches, ids=(1,))
    with PerfDataWriter(place / "theirs", StacksMetadata((event,))) as writer:
        writer.write(Comm(7, 7, name.decode("utf-8", "surrogateescape"), True, 3))
        writer.write(Mmap(7, 7, 0x401000, 0x2000, 0x1000, path, time=5))
        for ip, entries, pid, cpu in samples:
            array = np.array(entries, ENTRY_DTYPE)
            head = Head(ip, 9, 77, pid, pid, cpu, ip >> 63)
            assert file.sample(head, array) == 0
            batch = SampleBatch.build([ip], array, nr=[len(array)], pid=[pid], tid=[pid],
                                      cpu=[cpu], time=[9], period=[77])
            writer.write(perf_samples(batch, branches))
    assert file.close() == 0
    assert (place / "ours").read_bytes() == (place / "theirs").read_bytes()
    assert sorted(os.listdir(place)) == ["ours", "theirs"]
    shutil.rmtree(place)


def test_a_file_that_cannot_be_written_is_none(tmp_path):
    assert File(tmp_path / "missing" / "out").opened == CODES["LBR_EIO"]
    full = tmp_path / "full"
    (tmp_path / "full.part").symlink_to("/dev/full")
    file, entries = File(full), np.ones(32, ENTRY_DTYPE)
    results = [file.sample(Head(1, 1, 1, 1, 1, 1, 0), entries) for _ in range(50)]
    assert CODES["LBR_EIO"] in results and file.close() == CODES["LBR_EIO"]
    assert not full.exists() and not os.path.lexists(tmp_path / "full.part")


def test_arguments_out_of_range_are_refused(tmp_path):
    file = File(tmp_path / "out")
    assert file.sample(Head(), np.zeros(33, ENTRY_DTYPE)) == CODES["LBR_EINVAL"]
    assert file.mmap(1, 0, 1, 0, "x" * 4096) == CODES["LBR_EINVAL"]
    assert library().lbr_perfdata_comm(None, 1, 1, U64(1), b"x") == CODES["LBR_ENULL"]
    library().lbr_perfdata_discard(file.at)
    assert not os.listdir(tmp_path)


@pytest.mark.peer
def test_perf_reads_it(tmp_path):
    needs("perf")
    file, entries = File(tmp_path / "perf.data"), np.zeros(3, ENTRY_DTYPE)
    entries["from"], entries["to"] = [0x401010, 0x401020, 0], [0x401020, 0x401000, 0]
    entries["info"] = [1 << 63 | 1 << 60 | 7, 4 << 56 | 1 << 60 | 9, 0]
    assert file.comm(7, b"guest") == file.mmap(7, 0x401000, 0x1000, 0x1000, "/guest") == 0
    for _ in range(3):
        assert file.sample(Head(0x401020, 9, 1000, 7, 7, 0, 0), entries) == 0
    assert file.close() == 0
    out = subprocess.run(["perf", "script", "-i", str(tmp_path / "perf.data"), "-F",
                          "comm,ip,brstack,event"], check=True, capture_output=True, text=True,
                         timeout=60).stdout
    lines = out.strip().splitlines()
    assert len(lines) == 3 and re.match(r"\s*guest +branches: +401020 ", lines[0])
    assert "0x401010/0x401020/M/-/-/7" in out and "0x401020/0x401000/P/-/-/9" in out


def test_the_source_has_the_numbers_of_the_abi():
    text = (ROOT / "lbrcore/library/perfdata.c").read_text()
    for name, value in (("RECORD_COMM", abi.Record.COMM), ("RECORD_SAMPLE", abi.Record.SAMPLE),
                        ("RECORD_MMAP2", abi.Record.MMAP2), ("FEATURE_ARCH", abi.Feature.ARCH),
                        ("FEATURE_EVENT_DESC", abi.Feature.EVENT_DESC),
                        ("FEATURE_BRANCH_STACK", abi.Feature.BRANCH_STACK),
                        ("FEATURE_CPU_PMU_CAPS", abi.Feature.CPU_PMU_CAPS),
                        ("BRANCH_HW_INDEX", abi.BranchSample.HW_INDEX),
                        ("BRANCH_COUNTERS", abi.BranchSample.COUNTERS)):
        found = re.search(rf"PERF_{name} = ([^,/]+),", text)
        assert found and eval(found[1]) == int(value), name
