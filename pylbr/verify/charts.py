"""Tables and charts of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pylbr.errors import UnsupportedFeature
from pylbr.files.output import AtomicFile
from pylbr.tables import Table
from pylbr.verify.compare import Figures
from pylbr.verify.run import table
from pylbr.verify.simulation import CYCLES

__all__ = ["figure_table", "save_charts", "sweep_table"]

_HOST, _GUEST = "#2f6f9f", "#c7772e"


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _wait(f: Figures) -> tuple[str, str]:
    served = f.counts["served"]
    if not served:
        return "never", "never"
    return (f"{f.counts['wait_branches'] / served:,.0f}",
            f"{f.counts['wait_cycles'] / served:,.0f}")


def figure_table(figures: Sequence[Figures]) -> Table:
    """One row per figure, one column per policy."""
    rows: list[list[str]] = []

    def row(name: str, values: list[str]) -> None:
        rows.append([name, *values])

    def per_million(key: str) -> list[str]:
        return [f"{f.counts[key] / f.counts['branches'] * 1e6:,.0f}" for f in figures]

    row("host branches lost", [_percent(f.share("host_lost", "host_branches")) for f in figures])
    row("guest branches lost",
        [_percent(f.share("guest_lost", "guest_branches")) for f in figures])
    row("perf sessions served", [f"{f.counts['served']} of {f.counts['sessions']}"
                                 for f in figures])
    row("wait for the LBRs, branches, mean", [_wait(f)[0] for f in figures])
    row("longest, branches", [f"{f.counts['longest_wait']:,}" for f in figures])
    row("wait for the LBRs, cycles, mean", [_wait(f)[1] for f in figures])
    row("host samples short or absent", [_percent(f.share("cut", "samples")) for f in figures])
    row("guest samples short or absent",
        [_percent(f.share("guest_cut", "guest_samples")) for f in figures])
    row("host profile overlap", [f"{f.host_overlap:.4f}" for f in figures])
    row("guest profile overlap", [f"{f.guest_overlap:.4f}" for f in figures])
    if any(f.counts["moved"] for f in figures):
        row("vCPUs moved, records whole", [
            f"{f.counts['moved_whole']} of {f.counts['moved_compared']}" for f in figures])
    row("MSR accesses per million branches", per_million("msr_accesses"))
    row("XSAVES, XRSTORS per million branches", per_million("xsaves"))
    row("VM exits per million branches", per_million("exits"))
    row("cycles per branch", [f"{f.counts['cycles'] / f.counts['branches']:.3f}"
                              for f in figures])
    return table(["", *(f.policy for f in figures)], rows)


def sweep_table(sweep: Mapping[int, Sequence[Figures]]) -> Table:
    """Host overlap and mean wait against the length of a stay in the guest."""
    lengths = list(sweep)
    policies = [f.policy for f in sweep[lengths[0]]]
    rows = []
    for i, policy in enumerate(policies):
        cells = []
        for length in lengths:
            f = sweep[length][i]
            cells.append(f"{f.host_overlap:.3f}, wait {_wait(f)[0]}")
        rows.append([policy, *cells])
    return table(["guest branches between exits", *(f"{n:,}" for n in lengths)], rows)


def _bars(axes: Any, names: Sequence[str], values: Sequence[tuple[str, str, list[float]]],
          title: str, unit: str) -> None:
    height = 0.8 / len(values)
    for n, (label, color, numbers) in enumerate(values):
        places = [i + n * height for i in range(len(names))]
        axes.barh(places, numbers, height, label=label, color=color)
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(unit)
    axes.spines[["top", "right"]].set_visible(False)


def _overview(plt: Any, figures: Sequence[Figures]) -> Any:
    chart, axes = plt.subplots(1, 3, figsize=(12, 0.45 * len(figures) + 1.6), sharey=True,
                               layout="constrained")
    names = [f.policy for f in figures]
    _bars(axes[0], names, [
        ("host", _HOST, [100 * f.share("host_lost", "host_branches") for f in figures]),
        ("guest", _GUEST, [100 * f.share("guest_lost", "guest_branches") for f in figures]),
    ], "branches lost", "% of those that retired")
    _bars(axes[1], names, [
        ("host", _HOST, [f.host_overlap for f in figures]),
        ("guest", _GUEST, [f.guest_overlap for f in figures]),
    ], "overlap of the sampled profile with the truth", "share of edge counts")
    axes[1].set_xlim(0, 1)
    _bars(axes[2], names, [
        ("cycles", "#5b5b5b", [f.counts["cycles"] / f.counts["branches"] - CYCLES["branch"]
                               for f in figures])],
          "cost beside the branch itself", "cycles per branch")
    axes[0].legend(fontsize=8, frameon=False, loc="lower right")
    return chart


def _sweep(plt: Any, sweep: Mapping[int, Sequence[Figures]]) -> Any:
    chart, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    lengths = list(sweep)
    for i, first in enumerate(sweep[lengths[0]]):
        served = [n for n in lengths if sweep[n][i].counts["served"]]
        waits = [max(0.5, sweep[n][i].counts["wait_branches"] / sweep[n][i].counts["served"])
                 for n in served]
        # Policies that agree lie upon each other: hollow marks of different sizes show each.
        style: dict[str, Any] = {
            "marker": "osD^v<>PX*hpd8"[i % 14], "markersize": 15 - i % 12, "fillstyle": "none",
            "color": plt.get_cmap("tab20")(i % 20), "label": first.policy,
            "linestyle": ("-", "--", "-.", ":")[i % 4]}
        axes[0].plot(served, waits, **style)
        axes[1].plot(lengths, [sweep[n][i].host_overlap for n in lengths], **style)
    for axis, title, unit in zip(axes, (
            "mean wait until perf has the LBRs", "overlap of the host's profile with the truth",
    ), ("branches", "share of edge counts"), strict=True):
        axis.set_ylabel(unit)
        axis.set_xscale("log")
        axis.set_xlabel("guest branches between two VM exits, mean")
        axis.set_title(title, fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    if any(f.counts["served"] for row in sweep.values() for f in row):
        axes[0].set_yscale("log")
    axes[1].legend(fontsize=8, frameon=False)
    return chart


def save_charts(
    figures: Sequence[Figures], sweep: Mapping[int, Sequence[Figures]], directory: Path
) -> list[Path]:
    """Write the charts.

    Raises
    ------
    UnsupportedFeature
        matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise UnsupportedFeature("--out: charts need matplotlib, which is not installed") from None
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "pylbr"
    from matplotlib import pyplot as plt

    directory.mkdir(parents=True, exist_ok=True)
    charts = {"arbitration.svg": _overview(plt, figures)}
    if sweep:
        charts["arbitration-sweep.svg"] = _sweep(plt, sweep)
    paths = []
    for name, chart in charts.items():
        path = directory / name
        with AtomicFile(path) as output:
            chart.savefig(output.file, format="svg", metadata={"Date": None})
        plt.close(chart)
        paths.append(path)
    return paths
