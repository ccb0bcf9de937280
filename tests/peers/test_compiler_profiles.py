"""Profiles for compilers: LLVM's tools make the same, and compilers do what the profile is for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from peer_tools import LLVM, checked, llvm_prof, need, profgen, run
from peer_workload import HERE, compile_c, record, sample

from pylbr.cli import main
from pylbr.perf.data_writer import write_perf_data

pytestmark = [pytest.mark.peer, pytest.mark.slow]

FREESTANDING = ("-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
                "-fcf-protection=none", "-Wl,--build-id")
CLANG = "clang-19"


def both(binary, data):
    """Text of the profile that we make, and of llvm-profgen's."""
    ours, theirs = Path(f"{data}.prof.txt"), Path(f"{data}.profgen")
    assert main(["convert", str(data), "-o", str(ours), "--binary", str(binary)]) == 0
    profgen(19, binary, theirs, perfdata=data)
    return ours.read_text(), theirs.read_text()


@pytest.fixture(scope="module")
def stepper(tmp_path_factory):
    need("gcc")
    return compile_c("step.c", tmp_path_factory.mktemp("step") / "step")


def stepped(compiler, options, source, stepper, place):
    """A binary, and samples of what it did on the processor."""
    binary, data = place / "program", place / "perf.data"
    checked(need(compiler), *options, *FREESTANDING, "-o", binary, HERE / source)
    workload = record(binary, stepper, place / "rips")
    write_perf_data(data, workload.stream(sample(workload, 7)))
    return binary, data


@pytest.mark.parametrize(("compiler", "options"), [
    ("gcc", ("-O2", "-no-pie", "-gdwarf-4")), ("gcc", ("-O3", "-no-pie", "-gdwarf-5")),
    (CLANG, ("-O2", "-gdwarf-4")), (CLANG, ("-O3", "-gdwarf-5", "-funroll-loops",
                                            "-march=haswell", "-fdebug-info-for-profiling")),
])  # fmt: skip
def test_llvm_profgen_makes_the_same_text(compiler, options, stepper, tmp_path):
    ours, theirs = both(*stepped(compiler, options, "inlined.c", stepper, tmp_path))
    assert ours == theirs
    assert re.search("^run:[0-9]+:[0-9]+$", ours, re.M)
    assert re.search("^ +[0-9.]+: low:[0-9]+$", ours, re.M)


@pytest.mark.parametrize(("compiler", "options"), [
    ("g++", ("-gdwarf-5",)), ("clang++-19", ("-gdwarf-4", "-fdebug-info-for-profiling")),
])  # fmt: skip
def test_of_templates_and_cold_parts_too(compiler, options, tmp_path):
    binary, data = tmp_path / "program", tmp_path / "perf.data"
    checked(need(compiler), "-O2", *options, "-Wl,--build-id", "-o", binary, HERE / "inlined.cpp")
    checked(sys.executable, "-m", "pylbr", "record", "-q", "-o", data, "--", binary)
    ours, theirs = both(binary, data)
    assert ours == theirs and len(ours.splitlines()) > 200


def test_autofdo_counts_the_same_lines(workload, tmp_path):
    """Entries and the counts of lines; its totals count otherwise."""
    data, ours = tmp_path / "perf.data", tmp_path / "x.prof.txt"
    write_perf_data(data, workload.stream(sample(workload, 7)))
    assert main(["convert", str(data), "-o", str(ours), "--binary", str(workload.binary)]) == 0
    text = llvm_prof(workload.binary, tmp_path / "x", f"--profile={data}")

    def parts(profile):
        function, found = "", {}
        for line in profile.splitlines():
            name, _, count = line.strip().partition(":")
            if not line.startswith(" "):
                function = name
                found[name, "entries"] = count.split(":")[1]
            elif line[1] != " ":
                words = count.split()
                # Where calls lead, and how often; the count only where none is.
                found[function, name] = sorted(words[1:]) or words
        return found

    mine, other = parts(ours.read_text()), parts(text)
    assert other.pop(("run", "entries")) == "0"  # there is one
    assert len(other) > 20
    assert {key: mine.get(key) for key in other} == other


def test_llvm_profdata_reads_and_adds_them(workload, tmp_path):
    tool = need(LLVM[19] / "llvm-profdata")
    texts = []
    for number, period in enumerate((7, 11)):
        data = tmp_path / f"{number}"
        write_perf_data(data, workload.stream(sample(workload, period)))
        texts.append(tmp_path / f"{number}.prof.txt")
        assert main(["convert", str(data), "-o", str(texts[-1]), "--binary",
                     str(workload.binary)]) == 0
    again, total, merged = (tmp_path / name for name in ("again", "total", "merged.prof.txt"))
    checked(tool, "merge", "--sample", "--text", texts[0], "-o", again)
    assert again.read_text() == texts[0].read_text()
    shown = checked(tool, "show", "--sample", texts[0])
    assert re.search(r"Function: step: \d+, \d+, \d+ sampled lines", shown)
    checked(tool, "merge", "--sample", "--text", *texts, "-o", total)
    assert main(["merge", str(tmp_path / "0"), str(tmp_path / "1"), "-o", str(merged), "--binary",
                 str(workload.binary)]) == 0
    heads = [re.findall(r"^\w+:\d+:\d+$", path.read_text(), re.M) for path in (total, merged)]
    assert heads[0] == heads[1] != []


def test_clang_inlines_by_it(stepper, tmp_path):
    """Functions that are called often, which clang did not inline without a profile."""
    source = HERE / "inlined.c"
    options = ("-O2", "-g", "-fdebug-info-for-profiling")
    _, data = stepped(CLANG, options, "inlined.c", stepper, tmp_path)
    profile = tmp_path / "x.prof.txt"
    assert main(["convert", str(data), "-o", str(profile), "--binary",
                 str(tmp_path / "program")]) == 0
    command = (CLANG, *options, "-c", source, "-Rpass=sample-profile", "-Rpass=inline", "-o",
               tmp_path / "x.o", f"-fprofile-sample-use={profile}")
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "to match profiling context" in done.stderr, done.stderr
    assert "warning" not in done.stderr
    profile.write_text("nonsense\n")
    assert run(*command).returncode != 0


def go(*words, place):
    """Output of a Go that reads profiles."""
    found = shutil.which("go", path=os.pathsep.join(
        [os.path.dirname(sys.executable), os.environ["PATH"]]))
    version = re.search(r"go1\.(\d+)", checked(need(found or "go"), "version"))
    if not version or int(version[1]) < 23:
        need("go of version 1.23 or newer")
    return subprocess.run(
        [found, *map(str, words)], capture_output=True, text=True, timeout=300, cwd=place,
        env=os.environ | {"HOME": str(place), "GOTOOLCHAIN": "local", "GOFLAGS": "",
                          "GOCACHE": str(place / "cache")}, check=True)  # fmt: skip


def test_go_devirtualizes_and_inlines_by_it(tmp_path):
    place = tmp_path / "devirtualized"
    shutil.copytree(HERE / "devirtualized", place)
    go("build", "-o", "program", place=place)
    data, profile = place / "perf.data", place / "x.pgo"
    checked(sys.executable, "-m", "pylbr", "record", "-q", "-o", data, "--", place / "program")
    assert main(["convert", str(data), "-o", str(profile), "--binary", str(place / "program")]) == 0
    # What go build -pgo calls, without the whole runtime.
    go("tool", "preprofile", "-i", profile, "-o", "x.preprofile", place=place)
    said = go("tool", "compile", "-p", "main", "-pgoprofile=x.preprofile", "-m=2",
              "-d=pgodebug=2", "-o", "x.o", "main.go", place=place).stdout
    # The wrapper through which the interface calls a method of a value is not what is called.
    assert re.search(r"run:\d+: hottest callee main\.add\.do \(weight \d+\)", said)
    assert re.search(r"PGO devirtualizing .*do", said)
    assert re.search(r"hot-budget check allows inlining for call main\.large", said)
    # Newer ones have to build their pprof first.
    shown = checked(need("/usr/bin/go"), "tool", "pprof", "-top", profile)
    assert re.search(r" main\.large$", shown, re.M) and re.search(r" main\.add\.do$", shown, re.M)
