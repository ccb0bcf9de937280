"""What recording natively costs, beside the program alone; each round runs every contender once.

Elapsed and CPU time are those of the program, from its start to its end, recorder apart; pylbr's
own CPU time is listed beside them.  "a tick each": no tick makes more than one window.
Goals: 1,000 stacks per second at most 1.05 x, 10,000 at most 1.3 x.
"""

import shutil
import statistics
import subprocess
import time

import pytest

from bench.conftest import QUICK
from bench.test_bench_record import seconds_of
from pylbr.bench.child import used
from pylbr.bench.programs import commands, record
from pylbr.bench.rows_record import Counting
from pylbr.errors import UnsupportedFeature
from pylbr.record.engine import Request
from pylbr.record.native.engine import usable
from pylbr.record.recorded import record_program
from pylbr.record.wire_numbers import Counted

ROUNDS = 5 if QUICK else 15
SCALE = 32
NAMES = ("gzip", "sqlite3", "python3", "sort")


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """{name: command}; sort has two threads."""
    place = tmp_path_factory.mktemp("native")
    lines = place / "lines"
    lines.write_text("".join(f"{n * 0x9E3779B1 % (1 << 32):08x}\n" for n in range(30_000 * SCALE)))
    return {**commands(place, SCALE),
            "sort": ["/usr/bin/sort", "--parallel=2", "-S", "200M", lines]}


def recorded(command, hertz, overhead, burst=0):
    """(elapsed, CPU seconds of the program, those of pylbr, number of stacks)."""
    sink, before = Counting(), used()
    request = Request(command, counted=Counted.TIME, period=1_000_000_000 // hertz,
                      overhead=overhead, burst=burst)
    own = time.process_time()
    outcome = record(request, sink, "native")
    return outcome.seconds, used() - before, time.process_time() - own, sink.count


@pytest.mark.parametrize("name", NAMES)
def test_overhead(benchmark, programs, name):
    command = [str(word) for word in programs[name]]
    if not shutil.which(command[0]):
        pytest.skip(f"no {command[0]}")
    try:
        usable()
    except UnsupportedFeature as error:
        pytest.skip(str(error))
    contenders = {
        "alone": lambda: (*seconds_of(*command), 0, 0),
        "1000 Hz": lambda: recorded(command, 1000, 5),
        "10000 Hz": lambda: recorded(command, 10_000, 100),
        "10000 Hz, a tick each": lambda: recorded(command, 10_000, 100, burst=1),
        "50000 Hz": lambda: recorded(command, 50_000, 100),
        "10000 Hz, 5 %": lambda: recorded(command, 10_000, 5),
    }
    found = {key: [] for key in contenders}
    for _ in range(ROUNDS):
        for key, run in contenders.items():
            found[key].append(run())
    # Pairs of one round: what else the machine does then is the same for both.
    ratios = {
        key: [round(statistics.median(mine[i] / alone[i] for mine, alone in
                                      zip(found[key], found["alone"], strict=True)), 3)
              for i in (0, 1)]
        for key in found
    }
    own = {key: statistics.median(run[2] / run[1] for run in runs) for key, runs in found.items()}
    stacks = {key: statistics.median(run[3] / run[1] for run in runs)
              for key, runs in found.items()}
    benchmark.extra_info.update({"elapsed, CPU x alone": ratios, "stacks per CPU second": stacks,
                                 "pylbr's CPU per CPU second": own})
    print(f"\n{name}: " + "; ".join(
        f"{key} {elapsed} x ({cpu} x CPU), {stacks[key]:.0f} stacks/s, pylbr {own[key]:.2f}"
        for key, (elapsed, cpu) in ratios.items()))
    benchmark.pedantic(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True),
                       rounds=1, iterations=1)


def every_branch(command, engine, path):
    """(CPU seconds of the program, those of pylbr, elapsed, branches)."""
    before, own, start = used(), time.process_time(), time.monotonic()
    done = record_program(command, path, full=True, engine=engine)
    return (used() - before, time.process_time() - own, time.monotonic() - start, done.count)


@pytest.mark.parametrize("name", ("gzip", "sqlite3", "python3"))
def test_every_branch(benchmark, tmp_path, name):
    """--full into a .lbrt file: natively beside QEMU.  Goals: the program's CPU time at most 3 x
    that alone of compiled programs, 5 x of interpreters."""
    command = [str(word) for word in commands(tmp_path, SCALE // 8)[name]]
    if not shutil.which(command[0]):
        pytest.skip(f"no {command[0]}")
    contenders = {
        "alone": lambda: (seconds_of(*command)[1], 0, 0, 0),
        "native": lambda: every_branch(command, "native", tmp_path / "native.lbrt"),
        "qemu": lambda: every_branch(command, "qemu", tmp_path / "qemu.lbrt"),
    }
    found = {key: [] for key in contenders}
    for _ in range(3 if QUICK else 9):
        for key, run in contenders.items():
            found[key].append(run())
    for key, runs in found.items():
        ratio = statistics.median(mine[0] / alone[0] for mine, alone in
                                  zip(runs, found["alone"], strict=True))
        own, elapsed = (statistics.median(run[i] for run in runs) for i in (1, 2))
        benchmark.extra_info[key] = [round(ratio, 2), round(own, 2), round(elapsed, 2)]
        print(f"\n{name} {key}: CPU {ratio:.2f} x, pylbr {own:.2f} s, elapsed {elapsed:.2f} s, "
              f"{runs[0][3]:,} branches")
    benchmark.pedantic(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True),
                       rounds=1, iterations=1)
