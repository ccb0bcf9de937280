"""Ten kills; ``python -m tests.faults.kills`` makes a thousand."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.faults import kills
from tests.faults.runs import Run


@pytest.mark.slow  # some twenty calls of the command: ten seconds
def test_kills_leave_nothing_half(capfd):
    words = ["--run", "convert to parquet", "--run", "merge --resume"]
    assert kills.main(["--kills", "10", *words]) == 0
    said = capfd.readouterr().out
    assert int(re.search(r"(\d+) kills, 0 findings", said)[1]) >= 5


def test_a_half_file_is_a_finding(tmp_path, monkeypatch):
    """Of a command that writes under the final name at once."""
    monkeypatch.setattr(kills, "started", lambda run, place, folder: subprocess.Popen(
        ["sh", "-c", "printf half > o; exec sleep 60"], cwd=folder, stderr=subprocess.PIPE))
    killed, what = kills.kill(Run(("convert",), "o"), tmp_path, tmp_path, 0.5, b"half and more")
    assert killed and what == "4 bytes under the final name"
