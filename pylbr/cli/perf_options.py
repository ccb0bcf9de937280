"""The options of perf record, perf report and perf script, each taken or answered.

An option that has nothing to act on here (buffers, caches, what is always done) is taken; the
others are answered with what to do instead.

Source: the usage that perf 6.1 prints.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from pylbr.cli.perf_words import accept, refuse

__all__ = ["RECORD", "REPORT", "SCRIPT", "Words", "answer"]


@dataclass(frozen=True)
class Words:
    """Options with the same answer.

    Parameters
    ----------
    names : str
        Separated by spaces.
    advice : str
        What to do instead; empty: they are taken.
    value : bool
        They take one.
    """

    names: str
    advice: str = ""
    value: bool = False


def answer(parser: argparse.ArgumentParser, table: tuple[Words, ...]) -> None:
    """Take or answer the options of `table` that `parser` does not define itself."""
    own = {name for action in parser._actions for name in action.option_strings}
    for words in table:
        for name in words.names.split():
            if name in own:
                continue
            if words.advice:
                refuse(parser, name, advice=words.advice, value=words.value)
            else:
                accept(parser, name, value=words.value)


_CHAINS = ("samples have no call chains; record every branch (--full -o trace.arrow), then "
           "pylbr replay --call-graph lbr trace.arrow")
_ONE_PROGRAM = "one program is run and recorded; name it after the options, or give -p PID"
_STACKS_ONLY = "a sample is a branch stack; nothing else of the processor's state is recorded"
_USER_ONLY = "branches of user mode are recorded"
_ONE_FILE = "one file is written, of the whole run; -p PID --duration SECONDS takes a part of it"
_COUNTING = "samples are taken, nothing is counted; perf stat counts"
_LEAVE_OUT = "has nothing to act on here; leave it out"

RECORD = (
    Words("-N --no-buildid-cache --no-buffering --buildid-all --buildid-mmap -T --timestamp "
          "-P --period --sample-cpu --sample-identifier --all-user -v --verbose --no-bpf-event "
          "--exclude-perf --strict-freq --tail-synthesize --group --per-thread "
          "--timestamp-boundary"),
    Words("-m --mmap-pages --mmap-flush --affinity --proc-map-timeout --num-thread-synthesize "
          "--synth -r --realtime", value=True),
    Words("-a --all-cpus --all-cgroups", _ONE_PROGRAM),
    Words("-C --cpu -G --cgroup -u --uid", _ONE_PROGRAM, value=True),
    Words("-g --user-callchains --kernel-callchains", _CHAINS),
    Words("--call-graph", _CHAINS, value=True),
    Words("-i --no-inherit",
          "threads and children are recorded, too; -t TID records one thread"),
    Words("-d --data -W --weight -R --raw-samples --phys-data --data-page-size --code-page-size "
          "--transaction", _STACKS_ONLY),
    Words("-I --intr-regs --user-regs", _STACKS_ONLY, value=True),
    Words("-D --delay", "recording begins with the program; start it yourself, and give -p PID "
          "when it is time", value=True),
    Words("-n --no-samples -s --stat --running-time", _COUNTING),
    Words("-B --no-buildid", "build-ids find the files again on another machine; they stay"),
    Words("--all-kernel --kcore", _USER_ONLY),
    Words("--vmlinux", _USER_ONLY, value=True),
    Words("-S --snapshot --aux-sample --switch-output --switch-output-event --switch-max-files",
          _ONE_FILE, value=True),
    Words("--overwrite --timestamp-filename", _ONE_FILE),
    Words("-k --clockid", "times are those of CLOCK_MONOTONIC", value=True),
    Words("-z --compression-level", "files are written as they are; zstd FILE makes them small",
          value=True),
    Words("--control", "SIGINT ends a recording; -p PID begins one", value=True),
    Words("--filter", "events are not filtered by address; -j chooses kinds of branches",
          value=True),
    Words("--switch-events --namespaces --off-cpu", "a stack belongs to a task that runs; nothing "
          "is recorded of one that does not"),
    Words("--aio --debuginfod --threads --clang-path --clang-opt", _LEAVE_OUT, value=True),
    Words("--dry-run", _LEAVE_OUT),
)

_PERF_CHOOSES = ("all samples are counted; let perf choose them: perf script --show-mmap-events "
                 "-F comm,pid,tid,time,event,ip,brstack with this option | pylbr report -")
_HEAD = "pylbr inspect FILE shows the head and what the file holds"
_BRANCHES = ("shown are branches, not call chains; --by history is the way to them, --by callers "
             "which function enters which")
_SYMBOLS = "symbols come from the mapped files themselves, found by build-id and path"
_VIEWS = "choose a view, by --by VIEW; pylbr report --help lists them"
_TABLES = "--csv and --json print tables for other programs"
_CODE = "--by code shows source and instructions of a function"

REPORT = (
    Words("--stdio -b --branch-stack -f --force -v --verbose -q --quiet --demangle "
          "--skip-empty --show-total-period --disable-order -n --show-nr-samples --ns"),
    Words("--stdio-color", value=True),
    Words("-s --sort -F --fields --percentage --percent-type --group-sort-idx --samples "
          "--total-cycles", _VIEWS, value=True),
    Words("-T --threads --group --hierarchy --mem-mode --raw-trace --pretty "
          "--show-cpu-utilization --showcpuutilization", _VIEWS),
    Words("-g --call-graph --max-stack --ignore-callees", _BRANCHES, value=True),
    Words("-G --inverted --children --no-children --show-ref-call-graph --stitch-lbr --inline",
          _BRANCHES),
    Words("-c --comms -C --cpu -d --dsos -S --symbols --symbol-filter -p --parent --pid --tid "
          "--time --time-quantum --percent-limit --socket-filter --switch-on --switch-off --itrace",
          _PERF_CHOOSES, value=True),
    Words("-x --exclude-other -U --hide-unresolved --show-on-off-events", _PERF_CHOOSES),
    Words("-D --dump-raw-trace --stats --tasks --mmaps --header --header-only -I --show-info",
          _HEAD),
    Words("-k --vmlinux --kallsyms --symfs", _SYMBOLS, value=True),
    Words("-m --modules --ignore-vmlinux --demangle-kernel --full-source-path", _SYMBOLS),
    Words("-t --field-separator -w --column-widths", _TABLES, value=True),
    Words("--objdump --prefix --prefix-strip", _CODE, value=True),
    Words("--asm-raw --source", _CODE),
    Words("--tui", "text is printed, on a terminal through a pager"),
)

_SUFFIX = ("the suffix of OUT chooses the form; perf script -F prints other columns of "
           "OUT.perf.data")
_PERF_PRINTS = ("all samples are converted; let perf choose them: perf script --show-mmap-events "
                "-F comm,pid,tid,time,event,ip,brstack with this option | pylbr convert - -o OUT")
_SCRIPTS = "perf runs its own scripts; convert writes files"

SCRIPT = (
    Words("-f --force -v --verbose --ns --demangle --show-mmap-events --show-task-events "
          "--show-lost-events --show-kernel-path"),
    Words("-F --fields", _SUFFIX, value=True),
    Words("-a --all-cpus -G --hide-call-graph --show-on-off-events --inline --stitch-lbr "
          "--guest-code -d --debug-mode", _PERF_PRINTS),
    Words("-c --comms -C --cpu --dsos -S --symbols --addr-range --pid --tid --time --max-stack "
          "--max-blocks --stop-bt --switch-on --switch-off --itrace --insn-trace --call-trace "
          "--call-ret-trace --xed --graph-function", _PERF_PRINTS, value=True),
    Words("--show-switch-events --show-namespace-events --show-cgroup-events --show-round-events "
          "--show-bpf-events --show-text-poke-events",
          "branch stacks, mappings and tasks are converted, other records are left out"),
    Words("--reltime --deltatime --per-event-dump", _SUFFIX),
    Words("-D --dump-raw-trace --dump-unsorted-raw-trace --header --header-only -I --show-info",
          _HEAD),
    Words("-L --Latency -l --list --list-dlfilters", _SCRIPTS),
    Words("-s --script -g --gen-script --dlfilter --dlarg", _SCRIPTS, value=True),
    Words("-k --vmlinux --kallsyms --symfs --guestmount --guestvmlinux --guestkallsyms "
          "--guestmodules", _SYMBOLS, value=True),
    Words("--demangle-kernel --full-source-path", _SYMBOLS),
)
