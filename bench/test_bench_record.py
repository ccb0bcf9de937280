"""What recording costs, beside plain QEMU user mode and what people use instead.

One round runs every contender once, so that a busy machine is busy for all, but those that are
many times slower; the best of the rounds counts.  Goals: sampled at most 1.5 x plain QEMU, full
at most 2.5 x.
"""

import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from bench.conftest import QUICK
from pylbr.bench.child import used
from pylbr.bench.programs import commands, record
from pylbr.bench.rows_record import Counting, Discarding
from pylbr.record.engine import Request
from pylbr.record.toolchain import tools

HERE = Path(__file__).parent
ROUNDS = 5 if QUICK else 9
#: Of the programs' work: half a second and more under QEMU, so that starts weigh little.
SCALE = 4 if QUICK else 8


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """{name: command}."""
    return commands(tmp_path_factory.mktemp("bench"), SCALE)


@pytest.fixture(scope="session")
def plugins(tmp_path_factory):
    """Paths of the plugins to compare with: naive, empty."""
    include, built = HERE.parent / "pylbr" / "record" / "plugin", []
    for name in ("naive", "empty"):
        built.append(tmp_path_factory.mktemp(name) / f"{name}.so")
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{include}",
                        "-o", built[-1], HERE / f"{name}_plugin.c"], check=True)
    return built


def seconds_of(*command):
    """(elapsed, CPU) seconds of a command."""
    start, before = time.perf_counter(), used()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start, used() - before


def recorded(command, full):
    """(elapsed and CPU seconds from the program's start to its end, what the sink counted)."""
    sink, before = Counting(), used()
    outcome = record(Request(command, full=full), sink)
    return (outcome.seconds, used() - before), sink.count


@pytest.mark.parametrize("name", ["gzip", "sqlite3", "python3"])
def test_overhead(benchmark, programs, plugins, tmp_path, name):
    command, qemu = programs[name], tools().qemu
    if not shutil.which(command[0]):
        pytest.skip(f"no {command[0]}")
    naive, empty = plugins
    logged = ["-plugin", f"{naive},out={tmp_path / 'log'}"]
    contenders = {
        "native": lambda: seconds_of(*command),
        "qemu": lambda: seconds_of(qemu, *command),
        "empty": lambda: seconds_of(qemu, "-plugin", empty, *command),
        "sampled": lambda: recorded(command, False)[0],
        "full": lambda: recorded(command, True)[0],
    }
    slow = {
        "naive": lambda: seconds_of(qemu, *logged, *command),
        "valgrind none": lambda: seconds_of("valgrind", "--tool=none", *command),
        "valgrind lackey": lambda: seconds_of("valgrind", "--tool=lackey", *command),
    }
    best = {key: run() for key, run in slow.items()}
    (tmp_path / "log").unlink(missing_ok=True)
    for _ in range(ROUNDS):
        for key, run in contenders.items():
            best[key] = tuple(map(min, best.get(key, (float("inf"),) * 2), run()))
    taken = recorded(command, True)[1]
    ratios = {key: round(value[0] / best["qemu"][0], 2) for key, value in best.items()}
    cpu = {key: round(value[1] / best["qemu"][1], 2) for key, value in best.items()}
    benchmark.extra_info.update({
        "ratio to qemu": ratios, "ratio of CPU time": cpu,
        "seconds": {key: round(value[0], 3) for key, value in best.items()},
        "taken branches": taken, "taken a second, sampled": round(taken / best["sampled"][0]),
        "goal": {"sampled": 1.5, "full": 2.5},
    })
    print(f"\n{name}: {taken / 1e6:.0f} M taken, "
          f"sampled {taken / best['sampled'][0] / 1e6:.0f} M/s; "
          + ", ".join(f"{key} {best[key][0]:.2f} s = {ratio} x ({cpu[key]} x CPU)"
                      for key, ratio in ratios.items()))
    benchmark.pedantic(contenders["sampled"], rounds=1, iterations=1)


def high_water(pid):
    """VmHWM of a process, bytes; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((x for x in status.splitlines() if x.startswith("VmHWM")), "x 0")
    return int(line.split()[1]) * 1024


def watched(command):
    """Sum over a process and its descendants of the most memory that each had since its
    execve; what they share is counted for each."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most, done = {}, threading.Event()

    def look():
        while not done.is_set():
            waiting = [process.pid]
            for pid in waiting:
                most[pid] = high_water(pid) or most.get(pid, 0)
                try:
                    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                    waiting += map(int, children.split())
                except OSError:
                    continue
            time.sleep(0.005)

    thread = threading.Thread(target=look)
    thread.start()
    process.wait()
    done.set()
    thread.join()
    return sum(most.values())


@pytest.mark.parametrize("name", ["gzip", "sqlite3", "python3"])
def test_memory(benchmark, programs, tmp_path, name):
    """Resident memory of the whole recording above that of plain QEMU: under 200 MB."""
    import sys

    plain = watched([tools().qemu, *programs[name]])
    ours = watched([sys.executable, "-m", "pylbr", "record", "-o", str(tmp_path / "x"), "--",
                    *programs[name]])
    above = (ours - plain) / 1e6
    benchmark.extra_info.update({"MB above": round(above, 1), "goal": 200})
    print(f"\n{name}: {above:.0f} MB above plain QEMU's {plain / 1e6:.0f} MB")
    benchmark.pedantic(lambda: None, rounds=1, iterations=1)


@pytest.mark.parametrize("name", ["gzip", "sqlite3", "python3"])
def test_compact_trace(benchmark, tmp_path, name):
    """A full recording into .lbrt, beside one that drops all: elapsed, and CPU time of each side.

    On two idle cores the elapsed time is that of the slower side, the program or the encoder.
    """
    from pylbr.record.engine import engine
    from pylbr.record.trace_output import TraceOutput

    request = Request(commands(tmp_path, 1 if QUICK else 4)[name], full=True)
    path, rows = tmp_path / "x.lbrt", 0
    best = {}
    for _ in range(2 if QUICK else 5):
        for kind in ("dropped", "written"):
            start, child, own = time.perf_counter(), used(), time.process_time()
            if kind == "written":
                with TraceOutput(str(path), request, engine("qemu")) as sink:
                    record(request, sink)
                rows = sink.count
            else:
                record(request, Discarding())
            took = (time.perf_counter() - start, used() - child, time.process_time() - own)
            best[kind] = tuple(map(min, best.get(kind, took), took))
    (plain, program, _), (full, _, encoder) = best["dropped"], best["written"]
    info = {"elapsed ratio": full / plain, "ratio of two idle cores": max(encoder / program, 1),
            "program CPU ns": program / rows * 1e9, "encoder CPU ns": encoder / rows * 1e9,
            "goal": 1.2}
    benchmark.extra_info.update({key: round(value, 2) for key, value in info.items()})
    print(f"\n{name}: {rows / 1e6:.0f} M branches; elapsed {full:.2f} s, without output "
          f"{plain:.2f} s: {full / plain:.2f} x (goal 1.2); CPU time per branch: program "
          f"{info['program CPU ns']:.0f} ns, encoder {info['encoder CPU ns']:.0f} ns")
    benchmark.pedantic(lambda: record(request, Discarding()), rounds=1, iterations=1)
