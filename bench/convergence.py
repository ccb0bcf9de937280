"""How profiles from samples converge to the truth, drawn.

    python -m bench.convergence docs/images/record-convergence.svg

Each program is recorded in full, which is the truth, and once with a short period; every k-th
of those samples makes the profile of a period k times as long.  Overlap of two edge profiles:
the sum over all edges of the smaller share.
"""

import argparse
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from lbrcore import BranchClass
from pylbr.bench.programs import commands, record
from pylbr.record.engine import Request
from pylbr.record.wire_numbers import Counted

PERIOD = 1009
STRIDES = (1000, 300, 100, 30, 10, 3, 1)
KERNEL = np.uint64(1 << 63)
LAYOUT = Path(__file__).parents[1] / "tests" / "record" / "programs" / "layout.c"


def edges(source, target, weights=None):
    """{edge: times, or sum of the weights}; user mode only."""
    user = (source < KERNEL) & (target < KERNEL)
    # One number an edge: multiplied by an odd number, no two pairs of a program's meet.
    keys, place = np.unique(source[user] * np.uint64(0x9E3779B97F4A7C15) + target[user],
                            return_inverse=True)
    counts = np.bincount(place, None if weights is None else weights[user])
    return Counter(dict(zip(keys.tolist(), counts.tolist(), strict=True)))


class Truth:
    """A sink that counts edges."""

    def __init__(self):
        self.edges = Counter()

    def record(self, record):
        pass

    def branches(self, task, branches):
        taken = branches[branches["class"] != BranchClass.NOT_TAKEN]
        self.edges.update(edges(taken["from"], taken["to"]))


class Stacks:
    """A sink that keeps samples."""

    def __init__(self):
        self.batches = []

    def record(self, record):
        pass

    def samples(self, batch):
        self.batches += [batch.stack(i).copy() for i in range(len(batch))]


def overlap(one, other):
    """Share of weight that two profiles have in common."""
    total, all_ = sum(one.values()), sum(other.values())
    return sum(min(n / total, other[edge] / all_) for edge, n in one.items())


def curve(command):
    """[(samples, overlap, overlap of as many branches drawn independently), ...]."""
    truth, stacks, draw = Truth(), Stacks(), np.random.default_rng(1)
    record(Request(command, full=True), truth)
    record(Request(command, counted=Counted.TAKEN, period=PERIOD), stacks)
    names = list(truth.edges)
    weights = np.array([truth.edges[name] for name in names], float)
    rows = []
    for stride in STRIDES:
        chosen = stacks.batches[stride // 2::stride]
        if len(chosen) < 3:
            continue
        entries = np.concatenate(chosen)
        counts = draw.multinomial(len(entries), weights / weights.sum())
        ideal = Counter(dict(zip(names, counts.tolist(), strict=True)))
        rows.append((len(chosen), overlap(edges(entries["from"], entries["to"]), truth.edges),
                     overlap(ideal, truth.edges)))
    return rows, len(truth.edges), int(weights.sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", help="picture, .svg or .png")
    parser.add_argument("--scale", type=int, default=1)
    args = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "pylbr"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    with tempfile.TemporaryDirectory() as directory:
        layout = Path(directory) / "layout"
        subprocess.run(["gcc", "-O1", "-o", layout, LAYOUT], check=True)
        programs = {"layout": [str(layout), str(1_000_000 * args.scale)],
                    **commands(Path(directory), args.scale)}
        for (name, command), colour in zip(
                programs.items(), ("#2f6f9f", "#c7772e", "#4f8a4c", "#8f4f8a"), strict=True):
            rows, distinct, total = curve(command)
            samples, ours, ideal = zip(*rows, strict=True)
            label = f"{name}: {total / 1e6:.1f} M taken, {distinct:,} edges"
            axes.plot(samples, ours, "o-", color=colour, label=label)
            axes.plot(samples, ideal, ":", color=colour)
            for row in rows:
                print(f"{name:8} {row[0]:7,} samples  overlap {row[1]:.4f}  "
                      f"independent draws {row[2]:.4f}", flush=True)
    axes.plot([], [], ":", color="#555555", label="as many branches, drawn independently")
    axes.set(xscale="log", xlabel="samples of 32 branches", ylabel="overlap with the full trace",
             ylim=(None, 1.01))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(args.output, metadata={"Date": None} if args.output.endswith(".svg") else None)


if __name__ == "__main__":
    main()
