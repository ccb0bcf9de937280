"""Tables and charts of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
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
    axes[0].set_ylabel("policy")
    axes[0].legend(fontsize=8, frameon=False, loc="lower right")
    return chart


#: Marks of a chart's lines: as many as can be distinguished, hollow first.
_MARKS = tuple((mark, filled) for filled in ("none", "full") for mark in "osD^v<>PX*hpd8")


def _alike(sweep: Mapping[int, Sequence[Figures]]) -> dict[tuple, list[int]]:
    """Curves -> the policies, by number, that have them: one line for all that agree."""
    lengths = list(sweep)
    groups: dict[tuple, list[int]] = {}
    for i in range(len(sweep[lengths[0]])):
        figures = [sweep[n][i] for n in lengths]
        waits = tuple((n, max(0.5, f.counts["wait_branches"] / f.counts["served"]))
                      for n, f in zip(lengths, figures, strict=True) if f.counts["served"])
        groups.setdefault((waits, tuple(f.host_overlap for f in figures)), []).append(i)
    return groups


def _sweep(plt: Any, sweep: Mapping[int, Sequence[Figures]]) -> Any:
    """One panel per figure; policies that agree in both share a line, and the legend names each."""
    lengths = list(sweep)
    first = sweep[lengths[0]]
    groups = _alike(sweep)
    chart, axes = plt.subplots(1, 2, figsize=(11, 4.4 + 0.22 * len(groups)),
                               layout="constrained")
    served = False
    for number, ((waits, overlaps), members) in enumerate(groups.items()):
        # Lines that are close to one another are seen by marks of different sizes.
        mark, filled = _MARKS[number % len(_MARKS)]
        style: dict[str, Any] = {
            "marker": mark, "fillstyle": filled, "markersize": 14 - number % 10,
            "color": plt.get_cmap("tab10")(number % 10),
            "label": fill(", ".join(first[i].policy for i in members), 120),
            "linestyle": ("-", "--", "-.", ":")[number % 4]}
        axes[0].plot([n for n, _ in waits], [wait for _, wait in waits], **style)
        axes[1].plot(lengths, overlaps, **style)
        served |= bool(waits)
    for axis, title, unit in zip(axes, (
            "mean wait until perf has the LBRs", "overlap of the host's profile with the truth",
    ), ("branches (none is drawn as 0.5)", "share of edge counts"), strict=True):
        axis.set_ylabel(unit)
        axis.set_xscale("log")
        axis.set_xlabel("guest branches between two VM exits, mean")
        axis.set_title(title, fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    if served:
        axes[0].set_yscale("log")
    lines, labels = axes[0].get_legend_handles_labels()
    chart.legend(lines, labels, fontsize=8, frameon=False, loc="outside lower left")
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
