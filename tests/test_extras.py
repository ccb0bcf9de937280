"""Every command where the packages that pip leaves out are missing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import pylbr
from pylbr.cli import COMMANDS
from pylbr.errors import UnsupportedFeature
from pylbr.extras import EXTRAS, Extra, needed
from pylbr.optimize.bolt import find_bolt
from pylbr.record.native.engine import usable

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GZIP = str(ROOT / "examples" / "gzip.parquet")
#: Runs the command line as it is after a plain ``pip install pylbr``.
PLAIN = (f"import sys; sys.modules.update(dict.fromkeys({sorted(EXTRAS)})); "
         "from pylbr.cli import main; sys.exit(main(sys.argv[1:]))")
#: Command -> words of a call, and the extra that it needs; "" none.
CALLS = {
    "record": (["--full", "-o", "new.parquet", "--", "/bin/true"], "arrow"),
    "replay": ([GZIP, "-o", "new.perf.data"], "arrow"),
    "convert": (["{stacks}", "-o", "new.entries.csv"], "arrow"),
    "report": (["{stacks}", "--json"], ""),
    "optimize": (["--", "./missing"], None),
    "merge": (["{stacks}", "-o", "new.preagg", "--binary", sys.executable, "--dask", "tcp://[::1]:1"],
              "dask"),
    "doctor": (["https://[::1]:1/perf.data"], None),
    "inspect": (["{stacks}"], ""),
    "run": (["--report", "guest.elf"], "unicorn"),
    "linux": (["true"], "unicorn"),
    "verify": (["--ownership", "lease"], ""),
    "selftest": (["--group", "msrs"], "unicorn"),
    "arbitrate": (["--branches", "2000", "lease"], ""),
    "bench": (["unicorn.loop"], ""),
    "msr": (["--cpu", "skylake"], ""),
    "cpuid": (["--cpu", "skylake"], ""),
}


def plain(*words, cwd=None):
    return subprocess.run([sys.executable, "-c", PLAIN, *words], cwd=cwd, capture_output=True,
                          text=True, timeout=120, env={"PATH": "/usr/bin:/bin",
                                                       "PYTHONPATH": str(ROOT)})


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    path = tmp_path_factory.mktemp("extras") / "x.perf.data"
    words = ["replay", GZIP, "-c", "20000", "-o", str(path)]
    subprocess.run([sys.executable, "-m", "pylbr", *words], check=True)
    return str(path)


def test_every_command_has_a_call():
    assert set(CALLS) == set(COMMANDS)


@pytest.mark.parametrize("command", CALLS)
def test_a_command_works_or_names_what_to_install(command, stacks, tmp_path):
    words, extra = CALLS[command]
    done = plain(command, *(word.format(stacks=stacks) for word in words), cwd=tmp_path)
    assert "Traceback" not in done.stderr
    if extra:
        (line,) = done.stderr.splitlines()[-1:]
        assert done.returncode == 2 and line.startswith(f"pylbr {command}: ")
        assert line.endswith(f": pip install 'pylbr[{extra}]'")
        assert not list(tmp_path.iterdir())
    elif extra == "":
        assert done.returncode == 0 and done.stdout, done.stderr


def test_the_way_to_a_profile_needs_no_extra(tmp_path):
    """Recorded, reported, and as BOLT wants it."""
    try:
        usable()
    except UnsupportedFeature as error:
        pytest.skip(str(error))
    source = ROOT / "tests" / "optimize" / "layout.c"
    subprocess.run(["gcc", "-O1", "-Wl,-q", source, "-o", tmp_path / "app"], check=True)
    done = plain("record", "--", "./app", "9000000", cwd=tmp_path)
    assert done.returncode == 0 and re.search(r": [1-9]\d* samples", done.stderr), done.stderr
    report = plain("report", cwd=tmp_path)
    assert report.returncode == 0 and "step+0x" in report.stdout, report.stderr
    made = plain("convert", "perf.data", "-o", "app.preagg", "--binary", "app", cwd=tmp_path)
    assert made.returncode == 0 and (tmp_path / "app.preagg").stat().st_size, made.stderr
    try:
        find_bolt(None)
    except pylbr.errors.LbrError as error:
        pytest.skip(str(error))
    fdata = plain("convert", "perf.data", "-o", "app.fdata", "--binary", "app", cwd=tmp_path)
    assert fdata.returncode == 0 and (tmp_path / "app.fdata").stat().st_size, fdata.stderr


def test_the_traces_of_pylbr_alone_need_no_extra(stacks, tmp_path):
    (tmp_path / "t.csv").write_text("from,to,class\n" + "0x40,0x50,COND\n0x60,0x40,NEAR_RET\n" * 50)
    for name in ("t.lbrt", "t.arrow", "t.parquet"):
        done = plain("convert", "t.csv", "-o", name, cwd=tmp_path)
        assert (done.returncode == 0) == (tmp_path / name).exists() == (name == "t.lbrt")
    assert plain("inspect", "--all", "t.lbrt", cwd=tmp_path).returncode == 0
    subprocess.run([sys.executable, "-m", "pylbr", "convert", "t.lbrt", "-o", "t.arrow"],
                   check=True, cwd=tmp_path)
    read = plain("report", "t.arrow", cwd=tmp_path)  # by position, without Arrow's library
    assert read.returncode == 0, read.stderr


def test_the_extras_bring_what_the_messages_are_about():
    extras = PROJECT["optional-dependencies"]
    for package, (extra, _) in EXTRAS.items():
        assert package in {Requirement(line).name for line in extras[extra]}
        assert package not in {Requirement(line).name for line in PROJECT["dependencies"]}
    assert set(Requirement(extras["all"][0]).extras) == set(extras) - {"all"}


def test_a_package_that_is_broken_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "polars.py").write_text("raise ImportError('libm.so.6 is too old')")
    monkeypatch.delitem(sys.modules, "polars", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnsupportedFeature, match="is installed, but .*: libm.so.6 is too old"):
        needed("polars")
    (tmp_path / "polars.py").write_text("import no_such_module")
    with pytest.raises(UnsupportedFeature, match="No module named 'no_such_module'"):
        needed("polars")


def test_a_module_is_imported_by_its_first_use():
    code = ("import sys, pylbr.trace, pylbr.profile.file_profile as f; "
            "assert 'pyarrow' not in sys.modules; f.pa.int64(); assert 'pyarrow' in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert not hasattr(Extra("pyarrow"), "__wrapped__")
