"""The formats of perf."""

from __future__ import annotations

from pylbr.files.format import Format, WriteOptions
from pylbr.perf.abi import BranchSample
from pylbr.perf.data_reader import PerfData, is_perf_data
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.script_reader import PerfScript, is_perf_script
from pylbr.perf.script_writer import measured_fields, write_perf_script
from pylbr.perf.stacks import Stacks

__all__ = ["PERF_DATA", "PERF_SCRIPT"]


def _write_data(source: Stacks, path: str, options: WriteOptions) -> int:
    return write_perf_data(path, source)


def _write_script(source: Stacks, path: str, options: WriteOptions) -> int:
    if any(event.branch_sample_type & BranchSample.COUNTERS for event in source.metadata.events):
        options.note(f"{path}: perf script prints no branch counters; the text is without them")
    return write_perf_script(
        path, source, fields=measured_fields(source.metadata), mmap_events=True, task_events=True)


PERF_DATA = Format(
    "perf.data", "branch stacks as perf record writes them", "stacks", is_perf_data, PerfData,
    _write_data, (".perf.data",),
)
PERF_SCRIPT = Format(
    "perfscript", "text of perf script with branch stacks", "stacks", is_perf_script, PerfScript,
    _write_script, (".perfscript",),
)
