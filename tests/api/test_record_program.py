"""`pylbr.record_program`: the recorder of the command line, in a Python program."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

import pylbr
from pylbr.errors import CommandError, UnsupportedFeature
from pylbr.record.native.engine import usable
from pylbr.record.toolchain import tools
from pylbr.trace import Trace

BUSY = [sys.executable, "-S", "-c", "sum(i * i for i in range(400000))\nraise SystemExit(3)"]


@pytest.fixture
def native():
    try:
        usable()
    except UnsupportedFeature as error:
        pytest.skip(str(error))


@pytest.fixture
def qemu():
    try:
        tools()
    except UnsupportedFeature as error:
        pytest.skip(str(error))


def test_samples_at_full_speed(native, tmp_path):
    why = []
    done = pylbr.record_program(BUSY, tmp_path / "x.data", frequency="max", depth=16,
                                max_overhead=50, chosen=why.append)
    assert done.exit_code == 3 and done.engine == "native" and not done.nothing
    assert why[0].startswith("native: full speed")
    profile = pylbr.profile_of(done)
    assert profile.samples == done.count > 0
    assert "PyEval" in "".join(profile.to_pandas("functions")["function"])
    with pylbr.open(done.path) as source:
        assert source.metadata.command_line == ("pylbr", "record", "--", *BUSY)
        depths = [int(np.diff(batch.offsets).max()) for batch in source.samples()]
    assert 0 < max(depths) <= 16


def test_the_package_of_the_recorder_is_called_for_short(native, tmp_path):
    importlib.import_module("pylbr.record.engine")
    done = pylbr.record(BUSY, tmp_path / "x.data", frequency=2000)
    assert done.exit_code == 3 and isinstance(done, pylbr.Recording)
    assert sys.modules["pylbr.record"] is pylbr.record
    with pytest.raises(TypeError, match="unexpected keyword argument 'hertz'"):
        pylbr.record(BUSY, hertz=3)


def test_exact_counts_and_full_traces(qemu, tmp_path):
    some = pylbr.record_program(["/bin/true"], tmp_path / "x.data", count=101)
    every = pylbr.record_program(["/bin/true"], tmp_path / "x.parquet", full=True)
    with pylbr.open(every.path) as trace:
        assert isinstance(trace, Trace) and trace.count == every.count > 1000
    assert every.full and some.count > 10
    assert pylbr.profile_of(every).entries <= every.count


def test_a_recording_without_samples_says_why(qemu, tmp_path):
    done = pylbr.record_program(["/bin/true"], tmp_path / "x.data", count=10**9)
    assert done.count == 0 and done.exit_code == 0 and "-c 1009 gives some" in done.nothing


@pytest.mark.parametrize(("words", "options", "reason"), [
    ([], {}, "either a program or the pid"), (["true"], {"pid": 1}, "either a program or the pid"),
    (["true"], {"frequency": 9, "count": 9}, "not both"), (["/missing"], {}, "no such file"),
    (["true"], {"full": True, "depth": 8}, "has no stacks"), (["true"], {"output": "-"}, "-o -"),
    (["true"], {"depth": 7}, "--depth 7"), (["true"], {"engine": "none"}, "no engine 'none'"),
])
def test_what_cannot_be_recorded(words, options, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match=reason):
        pylbr.record_program(words, **options)
    assert not list(tmp_path.iterdir()), "no file of a recording that did not happen"


def test_the_name_record_stays_a_package_that_can_be_called():
    code = "import pylbr.record, pylbr, types; assert isinstance(pylbr.record, types.ModuleType)"
    subprocess.run([sys.executable, "-c", code], check=True)
