"""Stacks against judges that owe the recorder nothing: the processor's own single steps, BOLT, and
programs that do the same with and without it."""

import shutil
import subprocess
from itertools import pairwise

import numpy as np
import pytest

from pylbr.trace.modules import elf_modules
from tests.peers.peer_tools import perf2bolt
from tests.record.conftest import PROGRAMS as RECORDED
from tests.record.conftest import need
from tests.record.gain import Bolt, gains
from tests.record.native.conftest import PROGRAMS
from tests.record.native.stacks import complaints, read
from tests.record.oracle import Code

pytestmark = [pytest.mark.peer, pytest.mark.slow]
BARE = ("-static", "-no-pie", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
        "-fcf-protection=none")

CORPUS = r"""
cd "$1"; text=$2
for f in cat tac rev nl "head -n 999" "tail -n 999" "cut -c2-9" "fold -w 30" "fmt -w 40" expand \
    unexpand "tr 0-9 a-j" "sort -n" "uniq -c" "wc" cksum md5sum sha1sum sha256sum sha512sum \
    b2sum "base64 -w 50" "od -x" "split -n 1/3" "shuf --random-source=/dev/zero" "paste - -" \
    "join - $text" "comm - $text" "grep -c 7" "grep -E [1-5]{3}9" "sed -e s/1/one/g" \
    "awk {s+=\$1}END{print(s)}" "gzip -1n" "gzip -9n" "bzip2 -1" "xz -0" "openssl sha3-256" \
    "openssl enc -aes-128-ctr -K 00 -iv 00" "diff - $text" "cmp - $text" "sum -s" \
    "perl -ne \$s+=length;END{print(\$s)}" "python3 -c import(sys)" "dd bs=700 status=none" \
    "numfmt --from=none --invalid=ignore" "csplit -s -f part - 500" "iconv -f utf8 -t utf16" \
    "strings -n 4" "hexdump -C" "column -c 60" xxd "cpio -o" bc "dc -e 2p" factor tsort "pr -t" \
    ptx m4 "jq ."; do
    command -v ${f%% *} >/dev/null || continue
    echo "== $f"; $f < "$text" 2>&1 | sed "s|$1||g" | cksum; echo "${PIPESTATUS[0]}"
done
find "$1" -name 'part*' | sort | xargs cat | cksum
tar -C / -cf - bin/ls | cksum; sqlite3 :memory: "select sum(value) from generate_series(1,20000)"
seq 1 3000 | xargs -n 300 echo | cksum; bash -c 'for i in {1..3000}; do s=$((s+i)); done; echo $s'
"""


@pytest.fixture(scope="module")
def cycle(tmp_path_factory):
    """A program whose rounds are all alike, and its taken branches in three rounds, by ptrace."""
    need(shutil.which("gcc"), "no gcc")
    place = tmp_path_factory.mktemp("cycle")
    stepper, program, out = place / "step", place / "cycle", place / "rips"
    peers = RECORDED.parents[1] / "peers"
    subprocess.run(["gcc", "-O2", "-o", stepper, peers / "step.c"], check=True)
    subprocess.run(["gcc", "-O2", *BARE, "-o", program, PROGRAMS / "cycle.c"], check=True)
    code = subprocess.run([stepper, out, program, "3"], timeout=300).returncode
    need(code == 0, "single-stepping is not allowed here")
    files = Code(elf_modules(program))
    rips = np.fromfile(out, "<u8").tolist()
    return program, [pair for pair in pairwise(rips)
                     if files.at(pair[0])[1] and pair[1] != pair[0] + files.at(pair[0])[0]]


def recorded_cycle(native_record, program, rounds, *options):
    """Stacks, oldest branch first, as bytes; and their weights."""
    path, _ = native_record(program, rounds, options=("--max-overhead", "100", *options))
    found = read(path)
    ((_, stacks),) = found.stacks.items()
    return [np.array(stack[::-1], "<u8").tobytes() for stack in stacks], found.weights


def test_windows_equal_single_steps_of_the_processor(native_record, cycle):
    """Each stack, reversed, is a piece of the sequence of taken branches that ptrace gives."""
    program, taken = cycle
    sequence = np.array(taken, "<u8").tobytes()
    windows = set(recorded_cycle(native_record, program, "150000", "-F", "5000")[0])
    assert len(windows) > 300
    assert not [window for window in windows if sequence.find(window) % 16]
    assert sum(len(window) == 32 * 16 for window in windows) > 0.95 * len(windows)


def test_windows_of_a_tick_are_as_far_apart_as_is_stated(native_record, cycle):
    """Three in four windows begin 64 to 192 branches after the one before, none nearer."""
    program, taken = cycle
    sequence = np.array(taken, "<u8").tobytes()
    first = next(i for i, edge in enumerate(taken) if taken.count(edge) == 3)
    length = taken.index(taken[first], first + 1) - first
    windows, weights = recorded_cycle(native_record, program, "150000", "-F", "5000", "--burst",
                                      "4")
    assert len(windows) > 300
    # A round holds some windows twice: then nothing is said of what lies between.
    at = [sequence.find(window) // 16 if sequence.count(window) <= 3 else None
          for window in windows]
    assert not [window for window in windows if sequence.find(window) % 16]
    apart = [(then - now - 32) % length for now, then in pairwise(at) if None not in (now, then)]
    assert len(apart) > 0.5 * len(windows)
    within = sum(64 <= n <= 192 for n in apart) / len(apart)
    assert 0.6 < within < 0.95  # 129 of so many branches of a round, where the ticks differ
    assert sum(n < 64 for n in apart) < 0.1 * len(apart) and 0.2 * length > 129
    # A window stands for its share of a period of 800,000 ns; where ticks end before they have made
    # all four, as under load, one stands for more, and ticks come more often.
    assert 200_000 in weights and 0 < min(weights) <= max(weights) <= 800_000


def test_native_stacks_optimise_as_all_branches_do(native, qemu, tmp_path):
    """`python -m tests.record.gain` does the same of larger programs."""
    before, whole, few = gains(Bolt(), tmp_path, [RECORDED / "layout.c"])
    assert before == pytest.approx(whole[1], rel=0.001) and few[0] < 0.01 * whole[0]
    assert whole[2] < 0.4 * before
    assert few[2] < whole[2] + 0.01 * before


@pytest.mark.parametrize("name", ["sorting.c", "exceptions.cc"])
def test_bolt_finds_no_mismatching_trace(native_record, tmp_path, name):
    compiler = shutil.which("g++" if name.endswith(".cc") else "gcc")
    need(compiler, "no compiler")
    program = tmp_path / "program"
    subprocess.run([compiler, "-O2", "-fno-reorder-blocks-and-partition", "-Wl,--emit-relocs",
                    "-o", program, RECORDED / name, "-lm"], check=True)
    path, _ = native_record(program, *(["3000000"] if name == "sorting.c" else []),
                            options=("-F", "20000", "--max-overhead", "100"), check=None)
    assert read(path).count > 20
    assert perf2bolt(16, path, program, tmp_path / "fdata") == 0


def test_a_corpus_of_programs_does_what_it_does_alone(native_record, tmp_path):
    text = tmp_path / "text"
    text.write_bytes(b"".join(b"%d %x\n" % (i * i % 99991, i * 77) for i in range(9000)))
    outputs = []
    for place in ("alone", "recorded"):
        (tmp_path / place).mkdir()
        command = ["bash", "-c", CORPUS, "corpus", str(tmp_path / place), str(text)]
        if place == "alone":
            outputs.append(subprocess.run(command, capture_output=True, timeout=300))
        else:
            path, result = native_record(*command, options=("-F", "10000"), timeout=300)
            outputs.append(result)
    assert outputs[0].stdout == outputs[1].stdout
    assert outputs[0].stdout.count(b"==") > 35
    found = read(path)
    edges, ranges, wrong = complaints(found)
    assert edges > 500 and ranges > 500 and not wrong[:3]
    assert len(found.names) > 25
