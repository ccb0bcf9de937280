"""The comparison: its numbers agree with one another and with what a policy promises."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from lbrcore.config import LbrConfig
from lbrcore.dtypes import BRANCH_DTYPE
from pylbr.arbitration import POLICIES, make_policy
from pylbr.cli import main
from pylbr.errors import ConfigurationError
from pylbr.trace import Writer
from pylbr.verify import charts
from pylbr.verify.compare import Workload, compare, overlap, program, stream_of
from pylbr.verify.simulation import Simulation

BRANCHES = 3_000_000


@pytest.fixture(scope="module")
def figures():
    return {f.policy: f for f in compare(Workload(), BRANCHES)}


def test_every_policy_saw_the_same_workload(figures):
    for name in ("branches", "host_branches", "guest_branches", "sessions"):
        assert len({f.counts[name] for f in figures.values()}) == 1, name
    assert set(figures) == set(POLICIES)


def test_what_policies_promise(figures):
    assert figures["lease"].counts["guest_lost"] == 0
    assert figures["mediated"].counts["guest_lost"] == 0
    assert figures["arch-lbr-v2-fixed"].counts["host_lost"] == 0
    assert figures["arch-lbr-v2-fixed"].counts["longest_wait"] == 0
    assert figures["request"].counts["guest_lost"] > 0
    assert figures["lease"].counts["xsaves"] > figures["request"].counts["xsaves"]
    for name in ("request", "lease"):
        counts = figures[name].counts
        assert counts["served"] == counts["sessions"] > 3
        assert counts["longest_wait"] < 200  # the host's way to the next VM entry
        assert counts["host_lost"] <= counts["longest_wait"] * counts["sessions"]


def test_waiting_for_a_safe_point_does_not_change_the_profile(figures):
    """The reviewer's claim."""
    steal, wait = (figures[name].host_overlap for name in ("arch-lbr-v2-fixed", "request"))
    assert abs(steal - wait) < 0.01


def test_a_stolen_guest_profiles_badly(figures):
    assert figures["arch-lbr-v2-fixed"].guest_overlap < figures["lease"].guest_overlap - 0.05


def test_every_policy_of_a_picture_can_be_told_apart(figures):
    """Each is in one legend, once; lines of different policies differ in their marks."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    chart = charts._sweep(pyplot, {length: list(figures.values()) for length in (50, 200)})
    labels = [text.get_text() for text in chart.legends[0].get_texts()]
    assert sorted(", ".join(labels).replace("\n", " ").split(", ")) == sorted(POLICIES)
    assert "lease, request" not in labels or (
        figures["lease"].host_overlap == figures["request"].host_overlap)
    lines = chart.axes[1].get_lines()
    looks = {(line.get_marker(), line.get_fillstyle()) for line in lines}
    assert len(looks) == len(lines) == len(labels) > 3
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in chart.axes)
    assert len(set(charts._MARKS)) == len(charts._MARKS) > 2 * len(POLICIES)
    pyplot.close(chart)


def test_the_command_prints_the_same_figures_as_json(capsys):
    words = ["arbitrate", "lease", "request", "--branches", "300000", "--session-every", "5000",
             "--session-length", "3000"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    one, two = compare(Workload(session_every=5_000, session_length=3_000), 300_000,
                       ["lease", "request"])
    assert told == {"policies": [asdict(one), asdict(two)], "sweep": {}}
    assert told["policies"][0]["counts"]["served"] > 3


def test_overlap_by_hand():
    assert overlap(np.array([1, 1]), np.array([10, 10])) == 1
    assert overlap(np.array([1, 0]), np.array([0, 1])) == 0
    assert overlap(np.array([3, 1]), np.array([1, 1])) == 0.75
    assert overlap(np.zeros(2), np.ones(2)) == 0


def test_a_trace_can_be_the_stream():
    branches = np.zeros(6, BRANCH_DTYPE)
    branches["from"] = [1, 2, 1, 3, 2, 1]
    branches["to"] = 9
    edges, count = stream_of(branches)
    assert count == 3 and edges.tolist() == [0, 1, 0, 2, 1, 0]
    run = Simulation(make_policy("lease"), LbrConfig(linear_width=64),
                     [edges, program(1, 1000, 4) % 3], count, session_every=5_000,
                     session_length=20_000, period=7)
    run.run(200_000)
    assert run.profile_counts[0].sum() > 0 and run.truth_counts[0].sum() > 0


@pytest.mark.parametrize("bad", [
    {"streams": [np.zeros(3, np.uint32)]}, {"streams": [np.full(3, 9, np.uint32)] * 2},
    {"period": 0},
], ids=["no guest", "edge", "rate"])
def test_impossible_workloads(bad):
    arguments = {"streams": [np.zeros(3, np.uint32)] * 2, "edges": 4, **bad}
    with pytest.raises(ConfigurationError):
        Simulation(make_policy("lease"), LbrConfig(), **arguments)


def test_command_with_traces(tmp_path, capsys):
    """A loop of seven branches in the host, one branch in the guests."""
    paths = [str(tmp_path / "host.arrow"), str(tmp_path / "guest.arrow")]
    for path, edges in zip(paths, (7, 1), strict=True):
        branches = np.zeros(4000, BRANCH_DTYPE)
        branches["from"] = 0x1000 + np.arange(4000) % edges
        branches["to"] = 0x2000
        with Writer(path) as writer:
            writer.write(branches)
    words = ["arbitrate", "lease", "--branches", "300000", "--session-every", "5000",
             "--session-length", "20000", "--period", "97"]
    assert main([*words, "--trace", *paths]) == 0
    rows = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines()]
    overlap_of = {name.strip(): float(cell) for name, cell in rows if "overlap" in name}
    assert len(overlap_of) == 2 and min(overlap_of.values()) > 0.99
    with Writer(paths[1]) as writer:
        writer.write(branches[:0])
    for bad in ([paths[1]], paths * 2, [str(tmp_path / "none.arrow")]):
        assert main([*words, "--trace", *bad]) != 0
        assert capsys.readouterr().err.count("\n") == 1


def test_progress_counts_branches():
    told = []
    compare(Workload(cpus=2), 1_500_000, ["lease", "request"], report=told.append)
    assert sum(told) == 3_000_000 and len(told) > 2


def test_command_with_two_cpus(capsys):
    words = ["arbitrate", "lease", "mediated", "arch-lbr-v2-fixed", "--branches", "1000000",
             "--session-every", "20000", "--session-length", "20000", "--guest-branches", "200"]
    tables = []
    for cpus in ("1", "2"):
        assert main([*words, "--cpus", cpus, "--guests", "3"]) == 0
        tables.append({cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in
                       (line.split("|") for line in capsys.readouterr().out.splitlines())})
    one, two = tables
    moved = two.pop("vCPUs moved, records whole")
    assert one.keys() == two.keys() and one != two
    whole, compared = zip(*((int(word) for word in cell.split(" of ")) for cell in moved),
                          strict=True)
    assert whole[0] == whole[1] == compared[0] > 3 and whole[2] < compared[2] == compared[0]
    assert two["guest branches lost"][:2] == ["0.00 %", "0.00 %"]
    with pytest.raises(SystemExit):
        main([*words, "--cpus", "3"])


def test_command(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["arbitrate", "lease", "request", "--branches", "200000", "--sweep",
                 "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "guest branches lost" in out and "guest branches between exits" in out
    for name in ("arbitration.svg", "arbitration-sweep.svg"):
        assert (tmp_path / name).read_text().startswith("<?xml")
    assert main(["arbitrate", "--branches", "0"]) == 2
    assert "--branches" in capsys.readouterr().err
