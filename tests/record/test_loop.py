"""The loop closed: record, optimise, and count on the result what has become of the branches."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lbrcore import BranchClass as C
from tests.record.conftest import PROGRAMS, need

pytestmark = [pytest.mark.peer, pytest.mark.slow]
SOURCE = PROGRAMS / "layout.c"


def run(*command):
    return subprocess.run([str(x) for x in command], check=True, capture_output=True, text=True,
                          timeout=200)


def tool(*names):
    found = next(filter(None, map(shutil.which, names)), None)
    need(found, f"none of {', '.join(map(str, names))}")
    return Path(found)


def taken(record, program):
    """Exact count of taken branches of a run."""
    counts = record(program, "100000").classes()
    return sum(n for cls, n in counts.items() if cls != C.NOT_TAKEN)


@pytest.mark.parametrize("version", [16, 19])
def test_bolt_halves_the_taken_branches(pylbr_record, tmp_path, version):
    llvm = Path(f"/usr/lib/llvm-{version}/bin")
    perf2bolt, bolt = tool(llvm / "perf2bolt"), tool(llvm / "llvm-bolt")
    before, after, profile = tmp_path / "before", tmp_path / "after", tmp_path / "profile"
    run("gcc", "-O2", "-fno-reorder-blocks-and-partition", "-Wl,--emit-relocs", "-o", before,
        SOURCE)
    recorded = pylbr_record(before, full=False, options=("-e", "taken", "-c", "1009"))
    said = run(perf2bolt, "-p", recorded.path, "-o", profile, before)
    assert "traces mismatching disassembled function contents: 0 " in said.stdout + said.stderr
    run(bolt, before, "-o", after, f"-data={profile}", "-reorder-blocks=ext-tsp",
        "-reorder-functions=hfsort", "-split-functions", "-split-all-cold")
    assert run(before).stdout == run(after).stdout
    assert taken(pylbr_record, after) <= 0.5 * taken(pylbr_record, before)


def test_llvm_profgen_and_clang(pylbr_record, tmp_path):
    """No warnings, a profile that clang uses, and fewer instructions or branches."""
    profgen, clang = tool("/usr/lib/llvm-16/bin/llvm-profgen"), tool("clang-14", "clang")
    before, after, profile = tmp_path / "before", tmp_path / "after", tmp_path / "profile"
    flags = ("-O2", "-gdwarf-4", "-fdebug-info-for-profiling")
    run(clang, *flags, "-o", before, SOURCE)
    recorded = pylbr_record(before, full=False, options=("-e", "taken", "-c", "1009"))
    said = run(profgen, f"--perfdata={recorded.path}", f"--binary={before}",
               f"--output={profile}", "--format=text")
    assert "warning" not in (said.stdout + said.stderr).lower()
    assert profile.read_text().startswith("run:")
    run(clang, *flags, f"-fprofile-sample-use={profile}", "-o", after, SOURCE)
    assert run(before).stdout == run(after).stdout
    assert taken(pylbr_record, after) < taken(pylbr_record, before)


def test_autofdo(pylbr_record, tmp_path):
    create, dump = tool("create_gcov"), tool("dump_gcov")
    before, profile = tmp_path / "before", tmp_path / "profile"
    run("gcc", "-O2", "-gdwarf-4", "-o", before, SOURCE)
    recorded = pylbr_record(before, full=False, options=("-e", "taken", "-c", "1009"))
    run(create, f"--binary={before}", f"--profile={recorded.path}", f"--gcov={profile}",
        "--gcov_version=1")
    first = run(dump, "--gcov_version=1", profile).stdout.splitlines()[0]
    assert first.startswith("run") and int(first.split("total:")[1].split()[0]) > 100_000
