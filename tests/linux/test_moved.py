"""A guest that is saved while its perf records, and continued on another processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylbr.embed.channel import Channel
from pylbr.embed.machine import Machine
from pylbr.embed.savefile import restore, save
from pylbr.errors import StateError
from pylbr.linux.archive import read
from pylbr.linux.session import execute
from tests.linux.branch_check import stacks

pytestmark = pytest.mark.peer

RECORD = ("mount -o bind /dev/null /proc/kallsyms; "
          "perf record -q -BN -b -e branches:u -c 1009 ./work 40000")
LIMIT, SLICE = 1_000_000_000, 200_000


def finished(machine: Machine, channel: Channel) -> dict[str, bytes]:
    """What a guest that has its files brings out in the end."""
    ending = machine.run(LIMIT)
    assert (ending.kind, ending.code) == ("exit", 0)
    return read(bytes(channel.outbox))


def stacked(files: dict[str, bytes], folder: Path) -> list[list[tuple[int, int]]]:
    """The stacks of a guest's perf.data."""
    path = folder / "perf.data"
    path.write_bytes(files["perf.data"])
    return stacks(path)


@pytest.fixture(scope="module")
def halfway(linux, work, tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """Saved in the middle of a recording; and what came of it where it was not interrupted."""
    saved = tmp_path_factory.mktemp("moved") / "halfway.vm"
    machine = restore(linux.saved)
    channel = Channel(machine)
    machine.pause_at = machine.link.recorder.instructions + SLICE
    assert execute(machine, channel, RECORD, {"work": work}).ending.kind == "pause"
    sampled = 0
    while sampled < 5:  # slices at whose end the LBRs record
        machine.pause_at = machine.link.recorder.instructions + SLICE
        assert machine.run(LIMIT).kind == "pause"
        sampled += machine.processor.msrs.lbr.ctl & 1
    save(machine, saved)
    return saved, finished(machine, channel)


def test_continued_on_the_same_processor(halfway):
    saved, expected = halfway
    machine = restore(saved)
    assert finished(machine, Channel(machine)) == expected


@pytest.mark.parametrize("model", ["alder-lake-p", "architectural"])
def test_continued_on_another_processor(halfway, tmp_path, model):
    """Of the same features: the guest records the same."""
    saved, expected = halfway
    machine = restore(saved, model=model)
    assert machine.processor.model.name == model
    found = stacked(finished(machine, Channel(machine)), tmp_path)
    assert len(found) > 100 and found == stacked(expected, tmp_path)


def test_a_processor_that_cannot_continue(halfway):
    with pytest.raises(StateError, match="sapphire-rapids to haswell: .*legacy") as refused:
        restore(halfway[0], model="haswell")
    assert "damaged" not in str(refused.value)
