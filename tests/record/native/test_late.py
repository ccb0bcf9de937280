"""A recorder that comes late: the machine is busy, and it reads or attaches after the fact."""

import shutil
import subprocess
import time

import pytest

from pylbr.cli import main
from pylbr.record.native import engine
from pylbr.record.native.session import Session
from tests.record.conftest import PROGRAMS, need
from tests.record.native.stacks import read

pytestmark = [pytest.mark.peer, pytest.mark.slow]


def record(path, *command):
    options = ["--engine", "native", "-F", "2000", "-o", str(path)]
    assert main(["record", *options, "--", *command]) == 0
    return read(path)


@pytest.fixture
def threads(tmp_path):
    need(shutil.which("gcc"), "no gcc")
    source = (PROGRAMS / "threads.c").read_text().replace("50000+", "400000000+")
    (tmp_path / "threads.c").write_text(source)
    subprocess.run(["gcc", "-O1", "-o", tmp_path / "threads", tmp_path / "threads.c", "-lpthread"],
                   check=True, timeout=60)
    return tmp_path / "threads"


def test_stacks_are_read_after_the_program_has_ended(native, tmp_path, monkeypatch):
    """Nothing is read while it runs."""
    monkeypatch.setattr(engine._Run, "follow", lambda run, process, idle: wait(process))
    need(shutil.which("perl"), "no perl")
    found = record(tmp_path / "out", shutil.which("perl"), "-e", "$s += $_ % 7 for 1..3000000")
    assert found.count > 50


def wait(process):
    while process.running():
        time.sleep(0.01)


def test_threads_that_were_there_before_the_recorder(native, threads, tmp_path, monkeypatch):
    follow = Session.follow

    def late(session):
        time.sleep(0.2)
        return follow(session)

    monkeypatch.setattr(Session, "follow", late)
    found = record(tmp_path / "out", "sh", "-c", f"{threads}; true")
    assert len(found.tids) > 4 and found.count > 100
