"""Stacks that real processors recorded go through a facility, and through our perf.data."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lbrcore import BRANCH_DTYPE, BranchFlag, Flavour, LbrConfig, LbrState, xsave
from pylbr.cpu import Processor
from pylbr.perf.abi import EntryFlag
from pylbr.perf.batch import INFO_UNCOUNTED, SampleBatch
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.entries import perf_samples
from pylbr.perf.stacks import Samples
from pylbr.trace.formats import open_stacks
from tests.manual import (
    IA32_DEBUGCTL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_0_INFO,
    IA32_LBR_0_TO_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_XSS,
    INFO_CYC_CNT,
    INFO_IN_TSX,
    INFO_MISPRED,
    INFO_TSX_ABORT,
    MSR_LASTBRANCH_TOS,
    RECORD_ALL,
)

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PYLBR_SHARED_DATA", ROOT / ".." / "shared" / "data"))


@dataclass(frozen=True)
class Recording:
    """A file, and the facility of the processor that recorded it."""

    name: str
    depth: int
    info_mask: int

    @property
    def path(self):
        path = DATA / self.name
        if not path.exists():
            pytest.skip(f"{path} is not there")
        return path

    def legacy(self):
        return LbrState(LbrConfig(flavour=Flavour.LEGACY, depth_bitmap=0, depth=self.depth,
                                  ctl_mask=0x1FF, info_mask=self.info_mask))  # fmt: skip

    def architectural(self):
        state = LbrState(LbrConfig(info_mask=INFO_UNCOUNTED))
        state.depth = self.depth
        return state


SKYLAKE = Recording(
    "perf.data.branch-4.14", 32, INFO_MISPRED | INFO_IN_TSX | INFO_TSX_ABORT | INFO_CYC_CNT
)
SANDY_BRIDGE = Recording("perf.data.raw_callgraph_branch-3.4", 16, INFO_MISPRED)
recordings = pytest.mark.parametrize(
    "recording", [SKYLAKE, SANDY_BRIDGE], ids=["skylake", "sandy-bridge"]
)


def batches(path):
    with open_stacks(path) as stacks:
        return [record for record in stacks if isinstance(record, Samples)]


def branches(stack):
    """The branches of a stack, oldest first; what was empty is no branch."""
    entries = stack[stack["from"] != 0][::-1]
    result = np.zeros(len(entries), BRANCH_DTYPE)
    result["from"], result["to"] = entries["from"], entries["to"]
    flags = entries["flags"]
    result["cycles"] = flags >> np.uint64(4) & np.uint64(0xFFFF)
    for bit, flag in (
        (EntryFlag.MISPRED, BranchFlag.MISPRED), (EntryFlag.IN_TX, BranchFlag.IN_TSX),
        (EntryFlag.ABORT, BranchFlag.TSX_ABORT),
    ):  # fmt: skip
        result["flags"][flags & np.uint64(bit) != 0] |= np.uint8(flag)
    for side in ("from", "to"):
        result[f"cpl_{side}"] = np.where(entries[side] >> np.uint64(63), 0, 3)
    return result


def as_samples(records, info_mask):
    """What perf makes of the records of one facility."""
    batch = SampleBatch.build([0], records[None, :], info_mask=info_mask)
    return perf_samples(batch, 1 << 3)  # ANY, as both files were recorded


@recordings
def test_a_legacy_facility_gives_the_stacks_back(recording):
    state, count = recording.legacy(), 0
    state.enable = True
    for samples in batches(recording.path):
        for i in range(len(samples)):
            state.clear()
            state.record(branches(samples.stack(i)))
            seen = as_samples(state.records(), recording.info_mask)
            assert seen.entries.tolist() == samples.stack(i).tolist()
            count += 1
    assert count == {32: 13, 16: 513}[recording.depth]


@recordings
def test_an_xsaves_image_gives_the_stacks_back(recording):
    state, other = recording.architectural(), recording.architectural()
    state.ctl = RECORD_ALL
    for samples in batches(recording.path):
        for i in range(len(samples)):
            state.clear()
            state.record(branches(samples.stack(i)))
            area = bytearray(1408)
            xsave.xsaves(state, area, 1 << 15, address=0)
            other.clear()
            xsave.xrstors(other, area, 1 << 15, address=0)
            records = other.records()
            assert records.tolist() == state.records().tolist()
            # The recording part gave neither type nor the validity of cycles.
            records["info"] &= np.uint64(recording.info_mask)
            seen = as_samples(records, recording.info_mask)
            assert seen.entries.tolist() == samples.stack(i).tolist()


def legacy_stack(cpu, depth, with_info):
    """A stack as Linux reads it out of the MSRs (intel_pmu_lbr_read_64)."""
    newest = cpu.rdmsr(MSR_LASTBRANCH_TOS)
    stack = []
    for i in range(depth):
        at = (newest - i) % depth
        source, target = cpu.rdmsr(0x680 + at), cpu.rdmsr(0x6C0 + at)
        cycles = 0
        if with_info:
            info = cpu.rdmsr(0xDC0 + at)
            missed, cycles = info >> 63, info & 0xFFFF
        else:  # EIP_FLAGS: bit 63 of FROM, the rest sign-extended from bit 62
            missed = source >> 63
            source = source & (1 << 63) - 1 | (source >> 62 & 1) << 63
        stack.append((source, target, missed | (not missed) << 1 | cycles << 4))
    return stack


@recordings
def test_the_msrs_of_its_processor_give_the_stacks_back(recording):
    skylake = recording is SKYLAKE
    cpu = Processor("skylake" if skylake else "sandy-bridge")
    cpu.wrmsr(IA32_DEBUGCTL, 1)
    for samples in batches(recording.path):
        for i in range(len(samples)):
            for at in range(recording.depth):  # as intel_pmu_lbr_reset does
                for base in (0x680, 0x6C0, 0xDC0)[: 2 + skylake]:
                    cpu.wrmsr(base + at, 0)
            cpu.record(branches(samples.stack(i)))
            assert legacy_stack(cpu, recording.depth, skylake) == samples.stack(i).tolist()


@recordings
def test_an_architectural_processor_gives_the_stacks_back(recording):
    """The same branches, read from MSRs, and restored from an XSAVES image by another."""
    one, two = Processor("sapphire-rapids"), Processor("sapphire-rapids")
    for cpu in (one, two):
        cpu.wrmsr(IA32_XSS, 1 << 15)
        cpu.wrmsr(IA32_LBR_DEPTH, recording.depth)
    for samples in batches(recording.path):
        for i in range(len(samples)):
            one.wrmsr(IA32_LBR_DEPTH, recording.depth)  # the fast reset
            one.wrmsr(IA32_LBR_CTL, RECORD_ALL)
            one.record(branches(samples.stack(i)))
            one.wrmsr(IA32_LBR_CTL, 0)
            area = bytearray(4096)
            one.xsaves(area, rfbm=1 << 15)
            two.xrstors(area, rfbm=1 << 15)
            stacks = []
            for cpu in (one, two):
                bases = IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP, IA32_LBR_0_INFO
                stack = [tuple(cpu.rdmsr(base + at) for base in bases)
                         for at in range(recording.depth)]  # fmt: skip
                stacks.append([(a, b, info >> 63, info & 0xFFFF) for a, b, info in stack if a])
            expected = [
                (a, b, flags & 1, flags >> 4 & 0xFFFF) for a, b, flags in samples.stack(i).tolist()
                if a
            ]  # fmt: skip
            # The first record after recording is switched on has nothing to count from.
            expected[-1] = (*expected[-1][:3], 0)
            assert stacks == [expected, expected]


@recordings
def test_a_rewritten_file_reads_the_same(recording, tmp_path):
    path = tmp_path / "again"
    with open_stacks(recording.path) as stacks:
        write_perf_data(path, stacks)
    with open_stacks(recording.path) as one, open_stacks(path) as two:
        for name in ("hostname", "os_release", "arch", "cpu_description", "cpuid",
                     "command_line", "cpus_online", "total_memory", "build_ids"):  # fmt: skip
            assert getattr(one.metadata, name) == getattr(two.metadata, name)
        old, new = list(one), list(two)
    for name in ("ip", "pid", "tid", "time", "cpu", "period", "misc", "entries", "chain"):
        columns = [
            np.concatenate([np.atleast_1d(getattr(s, name)) for s in records
                            if isinstance(s, Samples) and getattr(s, name) is not None] or [[]])
            for records in (old, new)
        ]  # fmt: skip
        assert columns[0].tolist() == columns[1].tolist(), name
    assert [r for r in old if not isinstance(r, Samples)] == [
        r for r in new if not isinstance(r, Samples)
    ]  # fmt: skip
