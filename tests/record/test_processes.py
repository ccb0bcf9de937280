"""Names of threads and processes, programs that are executed, children, reserved memory."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from pylbr import trace
from pylbr.perf.stacks import Comm, Exit, Fork, Mmap, Samples
from pylbr.record.wire_numbers import IMAGE
from tests.record.conftest import ROOT, need

pytestmark = pytest.mark.peer

#: Runs a command, and writes the largest memory of it and its children, KiB, to a file.
MEASURED = """import resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1], "w") as file:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
sys.exit(code)"""


def records(path, *kinds):
    with trace.open_stacks(path) as stacks:
        return [record for record in stacks if isinstance(record, kinds)]


def sampled(path):
    """Samples of each pid."""
    found = Counter()
    for samples in records(path, Samples):
        found.update(samples.pid.tolist())
    return found


@pytest.fixture(scope="module")
def reserve(build):
    return build("reserve.c")


@pytest.fixture(scope="module")
def linked(build, tmp_path_factory):
    """The program, under a symbolic link."""
    path = tmp_path_factory.mktemp("names") / "mylink"
    path.symlink_to(build("names.c", "-pthread"))
    return path


def perf_comms(path):
    """Samples of each name, by perf's account."""
    need(shutil.which("perf"), "no perf; .ci/peers installs it")
    text = subprocess.run(["perf", "script", "-i", path, "-F", "comm"], check=True,
                          capture_output=True, text=True).stdout
    return Counter(line.strip() for line in text.splitlines())


class TestNames:
    def test_threads(self, linked, pylbr_record):
        run = pylbr_record(linked, full=False, options=("-c", "10007"))
        names = {}
        for record in records(run.path, Comm):
            names.setdefault(record.tid, []).append(record.name)
        main, *threads = names.values()
        assert main == ["mylink", "a name that is "]
        # The last is the forked child.
        assert sorted(name[-1] for name in threads) == sorted([
            "DOM Worker", "[ET_NET 0]", "from outside", "heirloom", "heirloom",
            "a name that is "])  # fmt: skip

    def test_the_program_sees_its_own(self, linked, pylbr_record):
        assert pylbr_record(linked).result.stdout == b"mylink\n"

    def test_perf_shows_them(self, linked, pylbr_record):
        run = pylbr_record(linked, full=False, options=("-c", "1009"))
        found = perf_comms(run.path)
        assert {"mylink", "DOM Worker", "[ET_NET 0]", "from outside", "heirloom"} <= set(found)
        assert sum(found.values()) == sum(sampled(run.path).values())

    @pytest.mark.parametrize("full", [True, False])
    def test_script(self, pylbr_record, tmp_path, full):
        script = tmp_path / "my.sh"
        script.write_text("#!/bin/sh\ni=0; while [ $i -lt 300 ]; do i=$((i+1)); done\n")
        script.chmod(0o755)
        run = pylbr_record(script, full=full, options=() if full else ("-c", "1009"))
        if full:
            run.branches()
            assert {task.name for task in run.metadata.tasks} == {"my.sh"}
        else:
            assert {record.name for record in records(run.path, Comm)} == {"my.sh"}

    def test_executed_by_a_shell(self, linked, pylbr_record, tmp_path):
        """The last part of the path that execve was given."""
        run = pylbr_record("/bin/sh", "-c", f"cd {tmp_path}; {linked}; exec {linked}",
                           full=False, options=("-c", "100003"))
        names = [record.name for record in records(run.path, Comm) if record.exec_]
        assert names == ["sh", "mylink", "mylink"]

    def test_a_comma_in_a_name(self, build, pylbr_record, tmp_path):
        path = tmp_path / "a,b=c"
        shutil.copy(build("reserve.c"), path)
        run = pylbr_record("/bin/sh", "-c", f"'{path}' 1; exec '{path}' 1", full=False,
                           options=("-c", "1009"))
        assert [r.name for r in records(run.path, Comm) if r.exec_] == ["sh", "a,b=c", "a,b=c"]


@pytest.fixture(scope="module")
def images(build):
    """Two programs whose code differs and lies at the same addresses."""
    flags = ("-no-pie", "-gdwarf-4")
    return (
        build("images.c", *flags, "-DWORK=hot_one", "-DROUNDS=300000", output="first"),
        build("images.c", *flags, "-DWORK=warm_two", "-DROUNDS=50000", "-DSECOND",
              output="second"),
    )


class TestImages:
    def test_each_executed_program_has_a_pid_of_its_own(self, images, pylbr_record):
        first, second = images
        run = pylbr_record(first, "exec", second, full=False, options=("-c", "1009"))
        begun = [r for r in records(run.path, Comm) if r.exec_]
        assert [r.name for r in begun] == ["first", "second"]
        assert begun[1].pid - begun[0].pid == IMAGE
        of = {}
        for record in records(run.path, Mmap):
            of.setdefault(record.pid, set()).add(os.path.basename(record.path))
        assert "first" in of[begun[0].pid] and "second" not in of[begun[0].pid]
        assert "second" in of[begun[1].pid] and "first" not in of[begun[1].pid]
        ended = [r.pid for r in records(run.path, Exit)]
        assert ended == [r.pid for r in begun]
        counts = sampled(run.path)
        assert counts[begun[0].pid] > 4 * counts[begun[1].pid] > 0

    def test_ten_in_a_row(self, images, pylbr_record):
        """Each pid is used once, in samples and in full traces."""
        first, _ = images
        words = [word for _ in range(9) for word in ("exec", str(first))]
        run = pylbr_record(first, *words, full=False, options=("-c", "10007"))
        begun = [r.pid for r in records(run.path, Comm) if r.exec_]
        assert [pid - begun[0] for pid in begun] == [n * IMAGE for n in range(10)]
        assert set(sampled(run.path)) == set(begun)
        full = pylbr_record(first, *words)
        assert len(set(full.branches()["task"].tolist())) == 10
        assert len({task.pid for task in full.metadata.tasks}) == 10

    def test_a_child_has_the_mappings_of_its_parent(self, images, pylbr_record):
        run = pylbr_record(images[0], "fork", full=False, options=("-c", "1009"))
        (fork,) = records(run.path, Fork)
        mapped = {pid: {(m.start, m.path) for m in records(run.path, Mmap) if m.pid == pid}
                  for pid in (fork.ppid, fork.pid)}
        assert mapped[fork.pid] == mapped[fork.ppid] != set()
        counts = sampled(run.path)
        assert counts[fork.pid] > 4 * counts[fork.ppid] > 0
        full = pylbr_record(images[0], "fork")
        full.branches()
        modules = Counter((m.pid, m.path) for m in full.metadata.modules)
        assert set(modules.values()) == {1} and len({pid for pid, _ in modules}) == 2


@pytest.mark.parametrize("copy", [(), ("in memory",)])
def test_program_executed_by_its_descriptor(build, reserve, pylbr_record, copy):
    run = pylbr_record(build("descriptor.c"), reserve, *copy, full=False, options=("-c", "1009"))
    assert run.result.stdout == b"reserved\n"
    assert run.result.stderr.count(b"\n") == 1
    names = [r.name for r in records(run.path, Comm) if r.exec_]
    assert names[0] == "descriptor" and names[1].isdigit()
    mapped = {r.path for r in records(run.path, Mmap)}
    assert ("/memfd:copy (deleted)" if copy else str(reserve)) in mapped


class TestReservedMemory:
    """QEMU keeps 6 MB of real memory for each GiB, from the start."""

    def test_what_there_is_room_for(self, reserve, pylbr_record):
        assert pylbr_record(reserve, "4").result.stdout == b"reserved\n"

    @pytest.mark.parametrize("full", [True, False])
    def test_too_much_ends_the_program(self, reserve, qemu, tmp_path, full):
        """As an AddressSanitizer's shadow would, with far less memory used than it needs."""
        usage = tmp_path / "usage"
        out = tmp_path / ("out.arrow" if full else "out.perf.data")
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, usage, sys.executable, "-m", "pylbr", "record",
             "--engine", "qemu", *["--full"] * full, "-o", out, "--", reserve,
             "60000"], capture_output=True, timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 137
        said = done.stderr.decode()
        assert re.search(
            r"reserve was killed: it reserves 60000 GiB of address space, for which QEMU needs "
            r"3614\d\d MB of memory, and \d+ MB are available\n", said), said
        assert int(usage.read_text()) < 2_000_000  # KiB
        assert out.exists()

    def test_what_the_kernel_refuses_is_the_programs_affair(self, reserve, pylbr_record):
        run = pylbr_record(reserve, "60000", "now")
        assert run.result.stdout in (b"Cannot allocate memory\n", b"")
        if not run.result.stdout:  # a machine that overcommits
            assert run.result.returncode == 137

    def test_address_sanitizer(self, pylbr_record, tmp_path):
        """Its shadow is 14 TiB of address space; without an end it takes all of the machine."""
        source, program = tmp_path / "x.c", tmp_path / "sanitized"
        source.write_text("int main(void) { return 0; }\n")
        built = subprocess.run(["gcc", "-fsanitize=address", "-o", program, source])
        need(built.returncode == 0, "no AddressSanitizer in gcc")
        run = pylbr_record(program, full=False, check=137)
        assert re.search(rb"sanitized was killed: it reserves \d+ GiB of address space",
                         run.result.stderr)
        assert {r.name for r in records(run.path, Comm)} == {"sanitized"}
