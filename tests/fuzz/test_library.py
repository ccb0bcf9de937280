"""The library under sanitizers, its digests over builds, and the harness against planted faults."""

from __future__ import annotations

from functools import partial

import pytest

from tests import once
from tests.fuzz.library import ARM, ROUND, SANITIZERS, build, run
from tests.proofs.planted import plant

#: Cases under a sanitizer: a second or two.
SHORT = {"events": 1000, "image": 2000, "state": 100, "migration": 20, "kinds": 2000}
EMULATOR = {"address": (), "thread": ("setarch", "-R")}  # TSan wants its shadow where it is


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_nothing_is_reported(sanitizer, tmp_path):
    program = build(tmp_path, flags=SANITIZERS[sanitizer])
    for target in ROUND:
        executions, refused, _ = run(program, target, 11, SHORT[target], threads=3,
                                     emulator=EMULATOR[sanitizer])
        assert executions > refused > 0
    run(program, "replay", 11, 300_000, threads=2, chunk=100, emulator=EMULATOR[sanitizer])


def beyond(text):
    """The ring with twice its places."""
    old = "state->ring[(position & (LBR_SLOTS - 1))]"
    assert old in text
    return text.replace(old, "state->ring[(position & (2 * LBR_SLOTS - 1))]")


def test_a_report_would_be_seen(tmp_path):
    program = build(tmp_path, flags=SANITIZERS["address"], change=beyond)
    with pytest.raises(AssertionError, match="runtime error: index .* out of bounds"):
        run(program, "events", 11, 2000)


@pytest.mark.slow
@pytest.mark.peer
def test_every_build_gives_the_same_digests(tmp_path):
    once.needs("clang-14", ARM[0], "qemu-aarch64")
    builds = {"gcc": (("gcc",), ("-O3",), ()), "clang": (("clang-14",), ("-O1",), ()),
              "arm": (ARM, ("-O2",), ("qemu-aarch64",))}
    found = {}
    for name, (compiler, flags, emulator) in builds.items():
        (tmp_path / name).mkdir()
        program = build(tmp_path / name, compiler, flags)
        found[name] = [run(program, target, 3, count, threads, emulator=emulator)
                       for target, count in SHORT.items() for threads in (1, 2)]
        found[name] += [run(program, "replay", 3, 300_000, 1, chunk, emulator)
                        for chunk in (1, 7, 1000)]
    assert found["gcc"] == found["clang"] == found["arm"]
    short = found["gcc"]
    assert short[0] == short[1] and short[-1] == short[-2] == short[-3]
    assert len({digest for _, _, digest in short}) == len(SHORT) + 1


@pytest.mark.parametrize(("fault", "target", "what"), [
    ("a pop restarts the cycles", "events", "two processors that did the same differ"),
    ("XSAVES writes TO as it was recorded", "image", "other records than RDMSR"),
])
def test_planted_faults_are_found(fault, target, what, tmp_path):
    program = build(tmp_path, flags=("-O1",), change=partial(plant, name=fault))
    with pytest.raises(AssertionError, match=what):
        run(program, target, 1, 50_000)


@pytest.mark.parametrize(("old", "new", "what"), [
    ("(lbr_hold_inline(state) | (refused << LBR_KIND_RARE_SHIFT))", "lbr_hold_inline(state)",
     "kinds are refused otherwise"),
    ("(state->cycles == 0)", "1", "kinds are recorded otherwise"),
])
def test_planted_faults_of_kinds_are_found(old, new, what, tmp_path):
    def change(text):
        assert old in text
        return text.replace(old, new)

    program = build(tmp_path, flags=("-O1",), change=change)
    with pytest.raises(AssertionError, match=what):
        run(program, "kinds", 1, 50_000)
