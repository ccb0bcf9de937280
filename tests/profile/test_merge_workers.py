"""Merging on many workers, some of which are killed, and going on after an interruption."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pylbr.cli.workers import _check_versions, _version
from pylbr.errors import CommandError
from pylbr.profile.inputs import inputs_of
from pylbr.profile.merge import Counts, count_input, merge_inputs
from pylbr.profile.resume import Parts
from tests.clusters import local_cluster
from tests.profile.test_merge import LIBRARY, fleet, merge, recording  # noqa: F401


def needs_dask():
    if os.environ.get("CI") != "true":
        pytest.importorskip("distributed")


def test_a_merge_goes_on_from_its_parts(fleet, tmp_path, monkeypatch):  # noqa: F811
    """The parts that there are, are not counted again; the bytes are those of one merge."""
    whole, parts, out = tmp_path / "whole.afdo.txt", tmp_path / "parts", tmp_path / "o.afdo.txt"
    assert merge(fleet, "-o", whole) == 0
    counted = []

    def count(path, binary, real=count_input):
        if len(counted) == 3:
            raise KeyboardInterrupt
        counted.append(path)
        return real(path, binary)

    from pylbr.profile import resume
    monkeypatch.setattr(resume, "count_input", count)
    assert merge(fleet, "-o", out, "--resume", parts) == 130
    assert not out.exists() and len(list(parts.iterdir())) == 3
    monkeypatch.setattr(resume, "count_input", lambda path, binary: counted.append(path)
                        or count_input(path, binary))
    assert merge(fleet, "-o", out, "--resume", parts) == 0
    assert len(counted) == len(set(counted)) == 5
    assert out.read_bytes() == whole.read_bytes()
    assert merge(fleet, "-o", out, "--resume", parts, "-j", 2) == 0 and len(counted) == 5
    assert out.read_bytes() == whole.read_bytes()


def test_a_part_of_another_input_or_a_damaged_one_is_not_used(tmp_path, capfd):
    name = recording(tmp_path / "x.perf.data", 1, 0x7F00_0000_0000)
    parts = Parts(str(tmp_path / "parts"))
    first = parts.count(name, LIBRARY)
    assert first == parts.count(name, LIBRARY) == count_input(name, LIBRARY)
    time.sleep(0.01)
    recording(tmp_path / "x.perf.data", 2, 0x7F00_0000_0000)
    assert parts.count(name, LIBRARY) == count_input(name, LIBRARY) != first
    part = parts.path(name)
    data = part.read_bytes()
    for at in (3, len(data) // 2, len(data) - 2):
        part.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
        assert merge(name, "-o", tmp_path / "o.preagg", "--resume", tmp_path / "parts") in (0, 2)
        text = capfd.readouterr().err
        assert "is damaged" in text or parts.count(name, LIBRARY) == count_input(name, LIBRARY)


@pytest.fixture(scope="module")
def cluster():
    """Three workers, each a process of its own."""
    with local_cluster() as found:
        yield found


@pytest.mark.slow
def test_dask_workers_make_the_same_bytes(fleet, tmp_path, cluster):  # noqa: F811
    assert merge(fleet, "-o", tmp_path / "one.preagg") == 0
    address = cluster.scheduler_address
    assert merge(fleet, "-o", tmp_path / "dask.preagg", "--dask", address) == 0
    assert (tmp_path / "one.preagg").read_bytes() == (tmp_path / "dask.preagg").read_bytes()


def _slow(path, binary):
    time.sleep(0.4)
    return count_input(path, binary)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.1, 0.6])
def test_killed_workers_cost_time_and_nothing_else(fleet, cluster, delay):  # noqa: F811
    """A worker that is killed while it counts: its inputs are counted by others."""
    from distributed import Client

    pairs = [(name, 1 + i) for i, name in enumerate(inputs_of([str(fleet)]))] * 2
    expected = merge_inputs(pairs, LIBRARY)
    with Client(cluster) as client:
        client.wait_for_workers(3)
        victims = list(client.run(os.getpid).values())[:2]

        def kill():
            for victim in victims:
                time.sleep(delay)
                os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        found = merge_inputs(pairs, LIBRARY, client.get_executor(pure=False, retries=10),
                             count=_slow)
        killer.join()
    assert found == expected != Counts()


@pytest.mark.slow
def test_an_error_of_a_worker_is_one_line(fleet, tmp_path, cluster, capfd):  # noqa: F811
    address = cluster.scheduler_address
    assert merge(fleet, __file__, "-o", tmp_path / "o.preagg", "--dask", address) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("pylbr")]
    assert len(lines) == 1 and "of no known format" in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_no_scheduler(fleet, tmp_path, capfd, monkeypatch):  # noqa: F811
    needs_dask()
    from pylbr.cli import workers as command

    monkeypatch.setattr(command, "_PATIENCE", 1)
    assert merge(fleet, "-o", tmp_path / "o.preagg", "--dask", "tcp://127.0.0.1:9") == 2
    assert "no scheduler answers there" in capfd.readouterr().err


@pytest.fixture(params=["version", "none", "old"])
def foreign(request, tmp_path):
    """A cluster of two workers; one finds another pylbr, none, or one without this command."""
    place = tmp_path / "other"
    info = place / "pylbr-9.8.7.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pylbr\nVersion: 9.8.7\n")
    if request.param != "version":
        (place / "pylbr").mkdir()
        (place / "pylbr" / "__init__.py").write_text(
            "__version__ = '9.8.7'\n" if request.param == "old"
            else "raise ModuleNotFoundError(\"No module named 'pylbr'\")\n")
    with local_cluster(1) as found:
        worker = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", found.scheduler_address,
             "--nthreads", "1", "--memory-limit", "0", "--no-dashboard"], cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(place)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            from distributed import Client

            with Client(found) as client:
                client.wait_for_workers(2, timeout=60)
            yield found.scheduler_address, request.param
        finally:
            worker.terminate()
            worker.wait(30)


@pytest.mark.slow
def test_a_real_worker_of_another_version_is_refused(fleet, tmp_path, foreign, capfd):  # noqa: F811
    """One line that names the worker and both versions; nothing is written."""
    address, kind = foreign
    assert merge(fleet, "-o", tmp_path / "o.preagg", "--dask", address) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("pylbr")]
    assert len(lines) == 1 and f"--dask {address}" in lines[0] and "install the same" in lines[0]
    assert "worker tcp://" in lines[0] and f"here is {_version()}" in lines[0]
    said = "No module named 'pylbr'" if kind == "none" else "has pylbr 9.8.7 on Python"
    assert said in lines[0]
    assert not (tmp_path / "o.preagg").exists()


class Workers:
    """A client whose workers have other versions."""

    def __init__(self, *answers):
        self._answers = {f"tcp://worker-{i}": answer for i, answer in enumerate(answers)}

    def run(self, _, on_error):
        assert on_error == "return"
        return self._answers


def test_a_worker_of_another_version_is_named():
    here = _version()
    assert here.startswith("pylbr 0") and " on Python 3." in here
    _check_versions(Workers(here, here), "tcp://x")
    for answers, said in (
        ((here, "pylbr 9.9 on Python 3.13"),
         f"worker tcp://worker-1 has pylbr 9.9 on Python 3.13, and here is {here}"),
        (("no installed pylbr on Python 3.11", "pylbr 9 on Python 3.11"),
         "and 1 others differ; install the same"),
        ((), "has no workers"), ((here, ModuleNotFoundError("No module named 'pylbr'")),
                     "worker tcp://worker-1 has none that can answer (No module named 'pylbr'),"),
    ):
        with pytest.raises(CommandError) as found:
            _check_versions(Workers(*answers), "tcp://x")
        assert said in str(found.value) and "--dask tcp://x" in str(found.value)
