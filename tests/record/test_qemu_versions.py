"""The plugin in QEMUs of other versions than the recorder's own: 9.0 and newer speak others."""

import os
import shutil
import subprocess
import time

import numpy as np
import pytest

from pylbr.errors import UnsupportedFeature
from pylbr.linux import debian
from pylbr.record.wire import Wire, WireOptions
from pylbr.record.wire_numbers import NO_BRANCH
from tests.record.conftest import need

pytestmark = pytest.mark.peer

#: A qemu-system-x86_64 of another version: the one that .ci/other-qemu unpacks.
OTHER = os.environ.get("PYLBR_OTHER_QEMU") or os.path.expanduser(
    "~/.cache/pylbr-other-qemu/trixie/qemu-system-x86_64")


def blocks_of(command, enough, **options):
    """The blocks that QEMU has described when there are `enough`."""
    with Wire(WireOptions(full=False, **options)) as wire:
        process = subprocess.Popen(command(wire.path), stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        try:
            until = time.monotonic() + 300
            while len(wire.blocks()) < enough and time.monotonic() < until:
                if process.poll() is not None:
                    break
                time.sleep(0.05)
            found, lengths = wire.blocks()[1:], wire.lengths()
        finally:
            process.kill()
            said = process.communicate()[0]
    assert len(found) >= enough - 1, said
    return found, lengths


def check(found, lengths):
    """Instructions make up their block, and most blocks end in a branch."""
    for block in found[:1000]:
        first = int(block["lengths"])
        mine = lengths[first:first + int(block["instructions"])]
        assert mine.sum() == block["size"] and mine.min() >= 1 and mine.max() <= 15
        assert block["last"] == mine[:-1].sum()
    assert np.count_nonzero(found["class"] != NO_BRANCH) > 0.8 * len(found)
    assert len(np.unique(found["class"])) >= 4


def test_the_recorders_own(qemu):
    def command(wire):
        return [qemu.qemu, "-plugin", f"{qemu.plugin},wire={wire},plugin={qemu.plugin}",
                shutil.which("sleep"), "60"]

    check(*blocks_of(command, 300))


def test_another(qemu):
    """Debian's kernel begins: from its first block on a system is recorded."""
    need(shutil.which(OTHER), f"no {OTHER}; .ci/other-qemu unpacks it")
    try:
        kernel = debian.kernel()
    except UnsupportedFeature as error:
        need(False, str(error))

    def command(wire):
        return [OTHER, "-display", "none", "-net", "none", "-kernel", kernel, "-append",
                "no_timer_check", "-plugin", f"{qemu.plugin},wire={wire},plugin={qemu.plugin}"]

    check(*blocks_of(command, 1000, halves=3, counted_halves=3))
