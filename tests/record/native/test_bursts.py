"""Several windows of one tick: how many, and what each stack stands for."""

import re
import subprocess
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylbr.errors import CommandError
from pylbr.perf.stacks import Samples
from pylbr.record.engine import Request
from pylbr.record.native.bursts import MOST, Pace, described, least_period, windows_per_tick
from pylbr.record.recorded import record_program
from pylbr.record.wire_numbers import Counted
from pylbr.trace import open_stacks
from tests.record.native.test_difficulties import built  # noqa: F401

BURST = 8
#: Windows, those left out, ticks that made none: in the summary of a recording.
SAID = {"made": r"([\d,]+) windows, of which cut", "left out": r"([\d,]+) windows left out",
        "in ticks": r"([\d,]+) windows of", "ticks": r" of ([\d,]+) ticks: those of one tick"}


def request(period, overhead=5.0, burst=0):
    return Request(["x"], counted=Counted.TIME, period=period, overhead=overhead, burst=burst)


@given(period=st.integers(20_000, 10**9), overhead=st.floats(0.5, 100))
def test_as_many_windows_as_keep_ticks_rare(period, overhead):
    burst = windows_per_tick(request(period, overhead))
    rare = [n for n in range(1, MOST + 1)
            if n * period >= 400_000 and n * period >= least_period(overhead, n)]
    assert burst == (rare[0] if rare else MOST)


@pytest.mark.parametrize(("hertz", "overhead", "burst"), [
    (1000, 5, 1), (2000, 5, 1), (2500, 100, 1), (5000, 100, 2), (10_000, 100, 4),
    (50_000, 100, 8), (10_000, 5, 8),
])
def test_windows_of_usual_rates(hertz, overhead, burst):
    assert windows_per_tick(request(10**9 // hertz, overhead)) == burst


def test_what_is_asked_for_is_taken_and_named():
    assert [windows_per_tick(request(20_000, 5, n)) for n in (1, 3)] == [1, 3]
    assert described(request(10**6)) == "1 per tick"
    assert described(request(10**6, burst=3)) == "up to 3 per tick, 64 to 192 taken branches apart"


@pytest.mark.parametrize("options", [{"full": True}, {"count": 100}, {"engine": "qemu"}])
def test_engines_without_ticks_have_none(tmp_path, options):
    with pytest.raises(CommandError, match="--burst: stacks per tick of the native engine"):
        record_program(["true"], tmp_path / "out.data", burst=2, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.peer
def test_what_was_chosen_is_said_before_the_program_runs(native, tmp_path):
    said = []
    record_program(["sh", "-c", "for i in $(seq 20000); do :; done"], tmp_path / "out.data",
                   frequency=10_000, max_overhead=100, chosen=said.append)
    assert len(said) == 1 and said[0].startswith("native: full speed, stacks at ticks of ")
    assert said[0].endswith("; up to 4 per tick, 64 to 192 taken branches apart")


def numbers(said):
    """What the summary counts."""
    found = Counter({name: int(match[1].replace(",", "")) for name, pattern in SAID.items()
                     if (match := re.search(pattern, said))})
    skipped = re.search(r"ticks without a window: (.*)", said)
    found["skipped"] = sum(int(n.replace(",", "")) for n in re.findall(
        r"([\d,]+) [a-z]", skipped[1] if skipped else ""))
    return found


@given(period=st.integers(20_000, 10**7), overhead=st.floats(1, 100),
       counts=st.lists(st.tuples(*[st.integers(0, 3000)] * 3), max_size=8))
def test_pace_stays_within_what_is_asked_for(period, overhead, counts):
    asked = request(period, overhead)
    pace, total = Pace(asked, 20_000), (0, 0, 0)
    assert pace.burst == 1 and pace.period >= max(period, least_period(overhead, 1))
    for step in counts:
        total = tuple(map(sum, zip(total, step, strict=True)))
        before = pace.period, pace.burst
        assert pace.adapt(*total) == ((pace.period, pace.burst) != before)
        assert pace.burst in (1, windows_per_tick(asked))
        assert pace.period >= max(20_000, least_period(overhead, pace.burst))
        assert pace.each == pace.period // pace.burst


def test_pace_follows_what_ticks_make():
    pace = Pace(request(100_000, 100), 20_000)
    assert (pace.period, pace.burst) == (100_000, 1)
    assert not pace.adapt(99, 0, 0)  # too few to say
    assert pace.adapt(1000, 1000, 0) and (pace.period, pace.burst) == (400_000, 4)
    assert not pace.adapt(2000, 1250, 0)  # all windows are made
    for n in range(3, 40):  # one in four
        pace.adapt(n * 1000, 1250 + (n - 2) * 1000, 0)
    assert (pace.period, pace.burst) == (100_000, 4)  # as many stacks as are asked for
    assert pace.adapt(41_000, 38_750, 0) and pace.period == 400_000


@pytest.mark.peer
@pytest.mark.slow
def test_stacks_share_their_ticks_though_system_calls_end_many(
    native, built, tmp_path, capfd, monkeypatch  # noqa: F811
):
    monkeypatch.setattr(Pace, "adapt", lambda *counts: False)
    program, path = built("calls.c"), tmp_path / "data"
    alone = subprocess.run([program], capture_output=True, check=True, timeout=60)
    done = record_program([program], path, frequency=20_000, max_overhead=100, burst=BURST,
                          engine="native")
    assert capfd.readouterr().out.encode() == alone.stdout
    with open_stacks(path) as source:
        assert f"windows: up to {BURST} per tick" in source.metadata.cpu_description
        weights = [int(n) for record in source if isinstance(record, Samples)
                   for n in record.period.tolist()]
    counts = numbers("\n".join(done.remarks))
    made = counts["made"] + counts["left out"]
    assert made > 500 and made == BURST * counts["ticks"] and counts["left out"] > 0.1 * made
    assert counts["in ticks"] == counts["made"]
    parts = [n // 50_000 for n in weights]
    assert [n * 50_000 for n in parts] == weights and min(parts) == 1
    # Nothing of a tick is lost but what the last one was to give.
    assert made - BURST <= sum(parts) <= made + BURST * counts["skipped"]
    assert sum(parts) > 1.2 * len(parts)  # what a call has ended stands for the rest of its tick
