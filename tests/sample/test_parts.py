"""A replay in parts, anywhere and again: the samples of one."""

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE
from lbrcore.replay import Replay, SampleBuffer
from lbrcore.summary import Summary
from pylbr import trace
from pylbr.cli import main
from pylbr.errors import TraceError
from pylbr.sample import SampleSetup, part_sampler, sample
from pylbr.sample.backup import BackupExecutor
from pylbr.sample.job import ReplayJob, sample_task
from pylbr.sample.part_file import read_part, write_part
from pylbr.sample.sampler import Sampler
from pylbr.sample.schedule import InThisProcess, sample_parts
from pylbr.trace.metadata import Metadata
from pylbr.trace.trace import Part, StreamTrace
from tests.clusters import local_cluster
from tests.replay.strategies import facilities, traces
from tests.sample.test_engines import listed, setups


class Held(StreamTrace):
    """Branches in memory; `read` as containers have it."""

    def __init__(self, branches, task=None, cpu=None):
        columns = [*BRANCH_DTYPE.names, *(["task"] if task is not None else []),
                   *(["cpu"] if cpu is not None else [])]
        step = max(97, len(branches) // 50)
        cuts = range(0, len(branches), step)
        super().__init__("held", Metadata(), columns, lambda: (
            Part(*(None if x is None else x[at:at + step] for x in (branches, task, cpu)))
            for at in cuts))
        self.count = len(branches)


@dataclass(frozen=True)
class HeldJob(ReplayJob):
    """Of a trace in memory, with cells of any size."""

    trace: Held | None = None
    cells: int = field(default=8)

    @property
    def cell_rows(self):
        return self.cells

    def open(self):
        # Closing it would end it for the next task.
        return Held.__new__(Held) if self.trace is None else _Open(self.trace)


class _Open:
    def __init__(self, trace):
        self._trace = trace

    def __enter__(self):
        return self._trace

    def __exit__(self, *_):
        pass


@st.composite
def held(draw):
    """A trace with tasks that move between CPUs, or without."""
    branches = draw(traces(longest=200))
    task = cpu = None
    kind = draw(st.sampled_from(["none", "task", "both", "one"]))
    if kind != "none":
        run = draw(st.sampled_from([1, 7, 50]))
        rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
        most = 2 if kind == "one" else 4
        task, cpu = (np.repeat(rng.integers(1, most, len(branches) // run + 1), run)
                     [:len(branches)].astype("u4") for _ in range(2))
        cpu = None if kind == "task" else cpu
    return Held(branches, task, cpu)


@given(setups(), held(), st.data())
@settings(max_examples=50, deadline=None, derandomize=True)  # some examples take many seconds
def test_any_division_and_any_number_of_workers_give_the_same_samples(engines, source, data):
    """Also where only the rows around an overflow are read."""
    setup = engines[0]
    part = data.draw(st.integers(1, max(1, source.count)).filter(
        lambda rows: rows * 16 > source.count), label="rows of a part")
    workers = data.draw(st.sampled_from([1, 2, 4, 8]))
    job = HeldJob("held", setup, source.count, part, trace=source,
                  cells=data.draw(st.sampled_from([1, 8, 64])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_sampler, "_RARE", data.draw(st.sampled_from([0, 1])))
        patch.setattr(part_sampler, "_FIRST_WINDOW", 2)
        patch.setattr(part_sampler, "_LARGEST_WINDOW", 16)
        patch.setattr(part_sampler, "_CAPACITY", 3)
        done = []
        found = listed(sample_parts(job, None, workers, done.append))
    assert found == listed(sample(source, setup))
    assert sum(done) == source.count


def test_a_wrong_guess_is_sampled_again(monkeypatch):
    """Freezing marks the record after a PMI, which a scan of the descriptions does not see."""
    branches = np.zeros(600, BRANCH_DTYPE)
    branches["from"] = np.arange(600) + 1
    setup = SampleSetup.of("every-branch", 20, branches="any")
    source = Held(branches)
    job = HeldJob("held", setup, 600, 61, trace=source)
    again = []

    class Counting(InThisProcess):
        def submit(self, fn, *arguments):
            again.append((fn, arguments[1]))
            return super().submit(fn, *arguments)

    found = listed(sample_parts(job, Counting(), 4))
    assert found == listed(sample(source, setup)) and len(found) == 30
    assert len(again) > len(set(again)) > 10


def test_few_rows_are_read_where_overflows_are_rare(monkeypatch):
    """A part that is described: the rows before a sample that its records are of, and no others."""
    n = 1 << 20
    branches = np.zeros(n, BRANCH_DTYPE)
    branches["from"] = np.arange(n) + 1
    source, read = Held(branches), []
    setup = SampleSetup.of("every-branch", 300_000, branches="any")
    real = Held.read
    monkeypatch.setattr(Held, "read", lambda self, low, high: read.append(high - low)
                        or real(self, low, high))
    job = HeldJob("held", setup, n, n // 2, trace=source, cells=4096)
    assert listed(sample_parts(job, None, 2)) == listed(sample(source, setup))
    assert 4096 <= sum(read) < 20_000


@given(facilities(), traces(longest=200), st.data())
@settings(max_examples=25, deadline=None)
def test_summaries_travel(lbr, batch, data):
    summary = Summary(lbr, batch)
    assert pickle.loads(pickle.dumps(summary)) == summary
    raw = bytearray(summary.to_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        changed = Summary.from_bytes(bytes(raw))
    except ValueError:
        return
    # What is let through harms nothing.
    other = lbr.copy()
    try:
        changed.then(summary).then(changed).apply(other)
    except ValueError:
        return
    assert len(other.records()) == lbr.depth


def test_bytes_that_are_no_summary_are_refused():
    for data in (b"", b"x" * 10, bytes(len(Summary(SampleSetup().facility()).to_bytes()))):
        with pytest.raises(ValueError, match="data"):
            Summary.from_bytes(data)


@given(setups(), traces(longest=300), st.data())
@settings(max_examples=25, deadline=None)
def test_a_replay_continues_from_its_key(engines, batch, data):
    """Another one of the same set-up, in another place."""
    setup = engines[0]
    events = [event.counted for event in setup.events]

    def fresh():
        return Replay(setup.facility(classes=True), events, freeze=bool(setup.freeze), whole=True)

    def run(replay, first, last):
        out = SampleBuffer(2000, replay.lbr.depth)
        assert replay.run(batch, out, first, last) == last
        return [x.tobytes() for x in (out.row[:out.count], out.entries[:out.count],
                                      out.nr[:out.count], out.event[:out.count])]

    cut = data.draw(st.integers(0, len(batch)))
    one, other = fresh(), fresh()
    run(one, 0, cut)
    key = pickle.loads(pickle.dumps(one.key))
    run(other, 0, data.draw(st.integers(0, cut)))
    other.restore(key)
    assert other.key == one.key
    assert run(one, cut, len(batch)) == run(other, cut, len(batch))
    assert other.key == one.key


def test_a_key_of_another_set_up_is_refused():
    setup = SampleSetup.of("branches:u", 7)
    replay = Replay(setup.facility(), [event.counted for event in setup.events])
    key = list(replay.key)
    for place, value in ((0, ()), (0, ((1, 1, 3),)), (1, -2), (2, 0), (4, b""), (7, (9, 0, 0, 0)),
                         (8, (0, (0, 0, 0)))):
        wrong = list(key)
        wrong[place] = value
        with pytest.raises(ValueError, match="key"):
            replay.restore(tuple(wrong))
    replay.restore(tuple(key))


# Files of parts


def test_a_damaged_part_is_found_with_its_offset(tmp_path):
    path = tmp_path / "x.samples"
    write_part(path, {"a": 1}, {"b": np.arange(5), "c": np.zeros(3, BRANCH_DTYPE)})
    head, arrays = read_part(path)
    assert head == {"a": 1} and arrays["b"].tolist() == [0, 1, 2, 3, 4]
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1:])
        with pytest.raises(TraceError, match="offset 0x|part of version") as found:
            read_part(path)
        assert str(path) in str(found.value)
    for end in (0, 5, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(TraceError, match="damaged"):
            read_part(path)
    path.write_bytes(data.replace(b"pylbr part 1", b"pylbr part 2", 1))
    with pytest.raises(TraceError, match="part of version 2"):
        read_part(path)


# The command


def written(folder):
    """A container of 400,000 branches."""
    n = 400_000
    rng = np.random.default_rng(3)
    branches = np.zeros(n, BRANCH_DTYPE)
    # A walk through 300 blocks, as a program's is.
    blocks = np.cumsum(rng.choice([0, 1, 1, 1, 2, 297], n)) % 300
    branches["to"] = 0x401000 + blocks * 64
    branches["from"][1:] = branches["to"][:-1] + 40
    branches["from"][0] = 0x401010
    branches["class"] = np.array([0, 4, 5, 2, 0, 6])[blocks % 6]
    branches["instructions"], branches["cycles"] = 5 + blocks % 7, 9
    branches["cpl_from"] = branches["cpl_to"] = 3
    path = folder / "t.lbrt"
    with trace.LbrtWriter(path) as out:
        out.write(branches)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return written(tmp_path_factory.mktemp("parts"))


ARGUMENTS = ["-c", "1009", "--jitter", "50", "--part", "70000", "-o"]


def replay(file, out, *words):
    return main(["replay", str(file), *ARGUMENTS, str(out), *map(str, words)])


@pytest.fixture(scope="module")
def whole(file, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "o.perf.data"
    assert replay(file, out) == 0
    return out.read_bytes()


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_samples_of_a_file_by_threads(file, workers):
    """Whichever task is done first."""
    setup = SampleSetup.of("branches:u", 1009)
    job = ReplayJob(str(file), setup, 400_000, 30_011)
    with trace.open(file) as source, ThreadPoolExecutor(workers) as pool:
        assert listed(sample_parts(job, pool, workers)) == listed(sample(source, setup))


def test_processes_write_the_same_bytes(file, whole, tmp_path):
    assert replay(file, tmp_path / "o.perf.data", "--jobs", 2) == 0
    assert (tmp_path / "o.perf.data").read_bytes() == whole


def test_a_replay_goes_on_from_its_parts(file, whole, tmp_path, monkeypatch):
    """Parts that are there are not made again; the bytes are those of one replay."""
    from pylbr.sample import job

    out, parts, real, made = tmp_path / "o.perf.data", tmp_path / "parts", job.sample_part, []

    def stopping(*arguments):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(arguments[2])
        return real(*arguments)

    monkeypatch.setattr(job, "sample_part", stopping)
    assert replay(file, out, "--resume", parts) == 130
    assert not out.exists() and len(list(parts.iterdir())) == 3
    monkeypatch.setattr(job, "sample_part", lambda *a: made.append(a[2]) or real(*a))
    assert replay(file, out, "--resume", parts) == 0
    assert out.read_bytes() == whole and len(made) == len(set(made)) == 6
    # Of another setup, nothing counts.
    assert replay(file, out, "--resume", parts, "--seed", 1) == 0
    assert out.read_bytes() != whole and len(made) == 12


def test_kill_and_go_on(file, whole, tmp_path):
    """SIGKILL at several points; then the same bytes, and no file but those of parts."""
    out, parts = tmp_path / "o.perf.data", tmp_path / "parts"
    code = ("import sys, time\nfrom pylbr.sample import job\nreal = job.sample_part\n"
            "def slow(*a):\n    print('part', flush=True)\n    time.sleep(0.05)\n"
            "    return real(*a)\njob.sample_part = slow\n"
            "from pylbr.cli import main\nsys.exit(main(sys.argv[1:]))")
    command = [sys.executable, "-c", code, "replay", str(file), *ARGUMENTS, str(out),
               "--resume", str(parts)]
    for seen in (1, 2, 1):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            for _ in range(seen):
                assert process.stdout.readline() == b"part\n"
            time.sleep(0.02 * seen)
            process.send_signal(signal.SIGKILL)
        assert not out.exists()
    assert replay(file, out, "--resume", parts, "--jobs", 2) == 0
    assert out.read_bytes() == whole


def test_a_damaged_part_ends_the_replay(file, tmp_path, capfd):
    out, parts = tmp_path / "o.perf.data", tmp_path / "parts"
    assert replay(file, out, "--resume", parts) == 0
    out.unlink()
    part = parts / "part-00002.samples"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    assert replay(file, out, "--resume", parts) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and str(part) in lines[0] and "offset" in lines[0]
    assert not out.exists()


def _swap(one, other):
    one.rename(f"{one}.x")
    other.rename(one)
    one.with_name(f"{one.name}.x").rename(other)


@pytest.mark.parametrize("spoil", [
    lambda parts, _: parts[2].unlink(), lambda parts, _: _swap(parts[1], parts[2]),
    lambda parts, _: parts[3].write_bytes(parts[1].read_bytes()),
    lambda parts, others: parts[2].write_bytes(others[2].read_bytes()),
], ids=["missing", "under another's name", "twice", "of another processor"])
def test_parts_that_do_not_fit_are_made_again(file, whole, tmp_path, spoil):
    """They count for the very place, setup and state that they were made of."""
    out = tmp_path / "o.perf.data"
    assert replay(file, out, "--resume", tmp_path / "parts") == 0
    assert replay(file, tmp_path / "x.perf.data", "--cpu", "haswell", "--resume",
                  tmp_path / "others") == 0
    spoil(*(sorted((tmp_path / name).glob("*.samples")) for name in ("parts", "others")))
    out.unlink()
    assert replay(file, out, "--resume", tmp_path / "parts") == 0
    assert out.read_bytes() == whole != (tmp_path / "x.perf.data").read_bytes()


def _end(job, number, *_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_ended(file, tmp_path, capfd, monkeypatch):
    from pylbr.sample import schedule

    monkeypatch.setattr(schedule, "sample_task", _end)
    assert replay(file, tmp_path / "o.perf.data", "--jobs", 2) == 2
    assert "was ended from outside" in capfd.readouterr().err and not list(tmp_path.iterdir())


def test_what_parts_need(file, tmp_path, capfd):
    text = tmp_path / "t.csv"
    text.write_text("from,to,class\n1,2,COND\n" * 9)
    for words, said in ((("--jobs", 2, "--threads", 2), "one thread"), (("--part", 0), "--part"),
                        (("--jobs", 2, "--dask", "x"), "one of them"), (("--jobs", 0), "at least"),
                        (("--jobs", 2, "--engine", "architectural"), "lazy engine")):
        assert replay(file, tmp_path / "o", *words) == 2 or said
        assert replay(file, tmp_path / "o.perf.data", *words) == 2
        assert said in capfd.readouterr().err
    assert replay(text, tmp_path / "o.perf.data", "--jobs", 2) == 2
    assert "convert it to .lbrt" in capfd.readouterr().err


def test_a_trace_that_grew_is_not_read(file):
    job = ReplayJob(str(file), SampleSetup.of("branches:u", 7), 399_999)
    with pytest.raises(TraceError, match="is not the trace of 399,999"):
        sample_task(job, 0, Sampler(job.setup).state())


def test_work_is_shared(file):
    """One samples the first half while another describes the second, which costs as much."""
    job = ReplayJob(str(file), SampleSetup.of("branches:u", 1_000_003), 400_000, 10_000)
    tasks = []

    class Noting(InThisProcess):
        def submit(self, fn, *arguments):
            tasks.append((fn.__name__, len(arguments)))
            return super().submit(fn, *arguments)

    list(sample_parts(job, Noting(), 2))
    assert 18 <= tasks.count(("describe_task", 2)) <= 22
    assert tasks.count(("describe_task", 2)) == tasks.count(("sample_task", 4))


# A cluster


def test_a_task_of_which_nothing_is_heard_is_begun_again():
    """The first result counts; a result, an error and a cancelled task pass."""
    lost, asked = [Future()], []

    class Losing(InThisProcess):
        def submit(self, fn, *arguments):
            asked.append(fn)
            return lost.pop() if lost else super().submit(fn, *arguments)

    executor = BackupExecutor(Losing(), 0.05)
    assert executor.submit(pow, 2, 5).result(timeout=30) == 32 and asked == [pow, pow]
    assert executor.submit(pow, 2, 3).result(timeout=30) == 8 and len(asked) == 3
    with pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 1, 0).result(timeout=30)
    lost.append(Future())
    future = executor.submit(pow, 1, 1)
    assert future.cancel() and future.cancelled()


@pytest.fixture(scope="module")
def cluster():
    """Three workers, each a process of its own."""
    with local_cluster() as found:
        yield found


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(file, whole, tmp_path, cluster):
    out = tmp_path / "o.perf.data"
    assert replay(file, out, "--dask", cluster.scheduler_address) == 0
    assert out.read_bytes() == whole
