"""What does each kind of profile gain?  Ten programs, three optimisers, six kinds.

    apt-get source --download-only bzip2 lua5.4 lz4 zlib mawk brotli     (in the folder SOURCES)
    python -m tests.record.study SOURCES RESULTS [--plot OUT.svg]

The same run of each program is profiled as branch stacks at three rates, as addresses alone (perf's
clock, natively), by the optimiser's own instrumentation, and branch by branch; after each, all
taken branches are counted under QEMU.  RESULTS gets a file per program and optimiser; what is
there is not measured again.  Printed is the table of docs/record.md.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bench.six import CPP
from tests.record import gain
from tests.record.conftest import PROGRAMS
from tests.record.loop import taken, tool

ROOT = Path(__file__).parents[2]
#: Taken branches from stack to stack.
PERIODS = (100_003, 10_007, 1_009)
#: Native runs under perf's clock.
RUNS = 20
KINDS = (*(f"stacks, 1 in {period:,}" for period in PERIODS), "addresses only", "instrumentation",
         "every branch")
FLAGS = ("-fno-pie", "-no-pie")
LLVM = Path("/usr/lib/llvm-19/bin")

LUA = """
local words, seed = {}, 7
for i = 1, 3000 do seed = (seed * 1103515245 + 12345) % 2147483648
  local w = string.format("%x", seed % 4099); words[w] = (words[w] or 0) + 1 end
local keys = {}
for k in pairs(words) do keys[#keys + 1] = k end
table.sort(keys, function(a, b) return words[a] > words[b] or words[a] == words[b] and a < b end)
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
print(#keys, keys[1], fib(17), (table.concat(keys, " "):gsub("a(.)", "%1b")):len())
"""
AWK = """
{ for (i = 1; i <= NF; i++) { n[$i]++; if ($i ~ /^[aeiou].*s$/) v++ } sub(/e/, "E"); l += length }
END { for (w in n) if (n[w] > most) { most = n[w]; best = w } print best, most, v, l }
"""


class Program(NamedTuple):
    """What is built, and how it is run; `{name}` stands for a file of the inputs."""

    package: str
    sources: str
    arguments: str
    flags: str = ""


PROGRAMS_OF_STUDY = {
    "bzip2": Program("bzip2", "blocksort.c huffman.c crctable.c randtable.c compress.c "
                     "decompress.c bzlib.c bzip2.c", "-c {text}"),
    "lua": Program("lua5.4", "src/l[!u]*.c src/lu[!a]*.c src/lua.c", "{lua}", "-lm"),
    "lz4": Program("lz4", "lib/*.c programs/*.c", "-9 -c {text}", "-I{}/lib"),
    "minigzip": Program("zlib", "*.c test/minigzip.c", "-c {text}", "-I{} -DHAVE_UNISTD_H"),
    "brotli": Program("brotli", "c/common/*.c c/dec/*.c c/enc/*.c c/tools/*.c",
                      "-c -q 5 {text}", "-I{}/c/include -lm"),
    "mawk": Program("mawk", "parse.c scan.c memory.c main.c hash.c execute.c code.c da.c error.c "
                    "init.c bi_vars.c cast.c print.c bi_funct.c kw.c jmp.c array.c field.c split.c "
                    "re_cmpl.c regexp.c zmalloc.c fin.c files.c scancode.c matherr.c fcall.c "
                    "version.c", "-f {awk} {text}", "-I{} -DHAVE_CONFIG_H -lm"),
    "words": Program("", "{words}", "2"),
    "layout": Program("", str(PROGRAMS / "layout.c"), ""),
    "sorting": Program("", str(PROGRAMS / "sorting.c"), "200000"),
    "orders": Program("", str(ROOT / "examples" / "orders.cpp"), ""),
}


def inputs(place):
    """Files that programs read."""
    choose = random.Random(5)
    lexicon = ["".join(choose.choices("etaoinshrdlucmfwyp", k=choose.randint(2, 9)))
               for _ in range(2500)]
    ranks = [1 / (i + 3) for i in range(len(lexicon))]
    text = "\n".join(" ".join(choose.choices(lexicon, ranks, k=11)) for _ in range(2000))
    found = {}
    for name, suffix, content in (("text", "txt", text), ("lua", "lua", LUA), ("awk", "awk", AWK),
                                  ("words", "cpp", CPP)):
        found[name] = place / f"{name}.{suffix}"
        found[name].write_text(content)
    return found


def unpacked(package, sources, place):
    """Where the source of a Debian package lies; configured if it asks for it."""
    archive = next(iter(sorted(sources.glob(f"{package}_*.orig.tar.*[!c]"))), None)
    if archive is None:
        raise SystemExit(f"{sources}: no source of {package}: apt-get source --download-only "
                         f"{package}")
    with tarfile.open(archive) as found:
        found.extractall(place, filter="data")
    folder = next(path for path in place.iterdir() if path.is_dir())
    if (folder / "configure").exists() and package == "mawk":
        run("./configure", cwd=folder)
        run("make", "parse.c", "scancode.c", cwd=folder)
    return folder


def run(*command, cwd=None):
    """Output of a command, bytes."""
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True,
                          cwd=cwd, stdin=subprocess.DEVNULL, timeout=600)
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines()
                 if "rror" in line] or ["?"]
        raise OSError(f"{Path(str(command[0])).name}: exit {done.returncode}: {lines[0][:100]}")
    return done.stdout


class Bolt(gain.Bolt):
    """gcc, and llvm-bolt 19 on its program."""

    def instrumented(self, sources, place, before, arguments, after):
        data = place / "counted.fdata"
        run(LLVM / "llvm-bolt", before, "-instrument", "-o", place / "counting",
            f"--instrumentation-file={data}")
        run(place / "counting", *arguments)
        self.by(before, data, after)

    def addresses(self, sources, place, before, perf_data, after):
        run(LLVM / "perf2bolt", "-nl", "-p", perf_data, "-o", place / "ip.fdata", before)
        self.by(before, place / "ip.fdata", after)

    @staticmethod
    def by(before, data, after):
        run(LLVM / "llvm-bolt", before, "-o", after, f"-data={data}", "-reorder-blocks=ext-tsp",
            "-reorder-functions=hfsort", "-split-functions", "-split-all-cold")


class AutoFdo(gain.AutoFdo):
    """gcc 11, AutoFDO; and gcc's own instrumentation."""

    def instrumented(self, sources, place, before, arguments, after):
        folder = place / "gcc"
        folder.mkdir()
        self.build(sources, folder / "program", "-fprofile-generate", "-fprofile-update=single")
        run(folder / "program", *arguments)
        self.build(sources, folder / "program", "-fprofile-use", "-Wno-missing-profile")
        shutil.copy(folder / "program", after)

    def addresses(self, sources, place, before, perf_data, after):
        counts = addresses_of(perf_data, before)
        (place / "ip.afdo.txt").write_text("\n".join(
            ["0", str(len(counts)), *(f"{ip:x}:{n}" for ip, n in sorted(counts.items())), "0", ""]))
        run(tool("create_gcov"), f"--binary={before}", f"--profile={place / 'ip.afdo.txt'}",
            "--profiler=text", "--use_lbr=false", f"--gcov={place / 'ip.afdo'}",
            "--gcov_version=1")
        self.build(sources, after, f"-fauto-profile={place / 'ip.afdo'}")


class Profgen(gain.Profgen):
    """clang 14, llvm-profgen 16; and clang's own instrumentation."""

    def instrumented(self, sources, place, before, arguments, after):
        raw, merged = place / "clang.profraw", place / "clang.profdata"
        self.build(sources, place / "counting", f"-fprofile-generate={place / 'raw'}")
        run(place / "counting", *arguments)
        raw = next((place / "raw").iterdir())
        run("/usr/lib/llvm-14/bin/llvm-profdata", "merge", "-o", merged, raw)
        self.build(sources, after, f"-fprofile-use={merged}")

    def addresses(self, sources, place, before, perf_data, after):
        counts = addresses_of(perf_data, before)
        sums = place / "ip.profgen.txt"
        sums.write_text("\n".join([str(len(counts)), *(
            f"{ip:x}-{ip:x}:{n}" for ip, n in sorted(counts.items())), "0", ""]))
        self.optimise(sources, before, sums, after)


def addresses_of(perf_data, program):
    """{address: samples} in a program that lies where it is linked."""
    text = run("perf", "script", "-i", perf_data, "-F", "ip,dso").decode().splitlines()
    words = [line.split() for line in text if f"({program})" in line]
    return Counter(int(line[0], 16) for line in words)


def measure(way, program, sources, found, place):
    """{kind: taken branches after, or why not}, and those before."""
    flags = program.flags.format(*[place / "x"] * 4)
    folder = place / "x"
    if program.package:
        holder = place / "unpacked"
        holder.mkdir()
        unpacked(program.package, sources, holder).rename(folder)
    names = []
    for word in program.sources.format(**found).split():
        names += sorted(folder.glob(word)) if program.package else [Path(word)]
    names = sorted(set(names), key=str)
    arguments = [str(word) for word in program.arguments.format(**found).split()]
    gain.FLAGS[:] = [*FLAGS, *(word for word in flags.split() if not word.startswith("-l"))]
    gain.LIBS[:] = [word for word in flags.split() if word.startswith("-l")]
    before = place / "before"
    way.build(names, before)
    output = run(before, *arguments)
    result = {"before": taken(before, *arguments)}
    for kind in KINDS:
        after = place / f"after{KINDS.index(kind)}"
        try:
            profiled(way, kind, names, place, before, arguments, after)
            if run(after, *arguments) != output:
                raise OSError("another output")
            result[kind] = taken(after, *arguments)
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if "rror" in line] or ["?"]
            result[kind] = f"{Path(error.cmd[0]).name}: {lines[0][:100]}"
        except (OSError, StopIteration, subprocess.TimeoutExpired) as error:
            result[kind] = str(error)[:120]
    return result


def profiled(way, kind, sources, place, before, arguments, after):
    """Optimise by one kind of profile."""
    number = KINDS.index(kind)
    if kind == "instrumentation":
        way.instrumented(sources, place, before, arguments, after)
        return
    if kind == "addresses only":
        data = place / "ip.data"
        words = " ".join(f"'{word}'" for word in (before, *arguments))
        run("perf", "record", "-q", "-e", "cpu-clock:u", "-F", "10000", "-o", data, "sh", "-c",
            f"for i in $(seq {RUNS}); do {words} > /dev/null; done")
        way.addresses(sources, place, before, data, after)
        return
    sums = place / f"sums{number}{way.suffix}"
    data = place / ("all.lbrt" if kind == "every branch" else f"{number}.data")
    options = ("--full",) if kind == "every branch" else ("-e", "taken", "-c", PERIODS[number])
    run(sys.executable, "-m", "pylbr", "record", "-q", *options, "-o", data, "--", before,
        *arguments)
    form = ("--preagg-form", "branches") if way.suffix == ".preagg" else ()
    run(sys.executable, "-m", "pylbr", "merge", "--binary", before, *form, data, "-o", sums)
    way.optimise(sources, before, sums, after)


def table(results):
    """Rows: program, optimiser, what each kind changes of the taken branches before."""
    lines = ["| program | optimiser | taken before | " + " | ".join(KINDS) + " |",
             "|---" * (3 + len(KINDS)) + "|"]
    for (program, way), found in results.items():
        cells = [change(found, kind) for kind in KINDS]
        lines.append(f"| {program} | {way} | {found['before']:,} | " + " | ".join(
            "n/a" if cell is None else f"{cell:+.1f} %" for cell in cells) + " |")
    return "\n".join(lines)


def change(found, kind):
    """Per cent; None if it was not measured."""
    after = found.get(kind)
    return None if not isinstance(after, int) else 100 * (after / found["before"] - 1)


def plot(results, path):
    """For each optimiser, the programs, and each kind as a mark."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "pylbr"
    from matplotlib import pyplot

    ways = list(dict.fromkeys(way for _, way in results))
    figure, axes = pyplot.subplots(1, len(ways), figsize=(12, 5), sharey=True)
    marks = (("v", "#9ecae1"), ("s", "#4292c6"), ("o", "#08519c"), ("x", "#c7772e"),
             ("|", "#222222"), ("*", "#31a354"))
    names = list(dict.fromkeys(program for program, _ in results))[::-1]
    for axis, way in zip(axes, ways, strict=True):
        for kind, (mark, color) in zip(KINDS, marks, strict=True):
            found = [(change(results[name, way], kind), i) for i, name in enumerate(names)
                     if (name, way) in results]
            found = [pair for pair in found if pair[0] is not None]
            axis.scatter(*zip(*found, strict=True) if found else ([], []), marker=mark,
                         color=color, s=110 if mark == "|" else 40, label=kind, zorder=3,
                         linewidths=2.5 if mark == "|" else 1.2)
        axis.axvline(0, color="#888888", linewidth=1)
        axis.set_title(way)
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("taken branches, % of before")
        axis.grid(color="#dddddd")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=len(KINDS),
                  fontsize=9)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path, metavar="SOURCES")
    parser.add_argument("results", type=Path, metavar="RESULTS")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only", default="", help="programs whose name has this in it")
    args = parser.parse_args()
    args.results.mkdir(exist_ok=True)
    results = {}
    for name, program in PROGRAMS_OF_STUDY.items():
        for way in (Bolt(), AutoFdo(), Profgen()):
            kept = args.results / f"{name}-{way.suffix[1:].partition('.')[0]}.json"
            if not kept.exists() and args.only in name:
                with tempfile.TemporaryDirectory() as directory:
                    place = Path(directory)
                    found = measure(way, program, args.sources, inputs(place), place)
                kept.write_text(json.dumps(found, indent=1))
                print(f"{name}, {way.title}: {found}", file=sys.stderr, flush=True)
            if kept.exists():
                results[name, way.title] = json.loads(kept.read_text())
    print(table(results))
    if args.plot:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
