"""Files under their names, and what already has the name."""

import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from pylbr.errors import TraceError
from pylbr.files.output import AtomicFile


def write(path, data=b"all of it"):
    with AtomicFile(path) as output:
        output.file.write(data)


def test_pipe_stays_a_pipe(tmp_path):
    """As root, a device that is replaced by a file is gone for the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write(pipe)
    reader.join(timeout=20)
    assert got == [b"all of it"]
    assert stat.S_ISFIFO(pipe.stat().st_mode) and os.listdir(tmp_path) == ["pipe"]


def test_device_stays_a_device():
    path = f"/proc/{os.getpid()}/fd/{os.open('/dev/null', os.O_WRONLY)}"
    write(path)
    assert stat.S_ISCHR(os.stat(path).st_mode)
    os.close(int(path.rpartition("/")[2]))


def test_device_without_room():
    path = f"/proc/{os.getpid()}/fd/{os.open('/dev/full', os.O_WRONLY)}"
    with pytest.raises(TraceError, match="No space left on device"):
        write(path)
    os.close(int(path.rpartition("/")[2]))


def test_link_stays_a_link(tmp_path):
    link, target = tmp_path / "link", tmp_path / "elsewhere" / "target"
    target.parent.mkdir()
    link.symlink_to(target)
    write(link)
    assert link.is_symlink() and target.read_bytes() == b"all of it"


def test_exception_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(KeyError), AtomicFile(path) as output:
        output.file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", [".", "socket"])
def test_no_file(tmp_path, name):
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(TraceError, match="name a file"):
            AtomicFile(tmp_path / name)


def writing(path, what):
    """A process that writes to `path` and does not end; SIGKILL ends it."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys\nfrom pathlib import Path\n{what}\nprint(flush=True)\n"
         "sys.stdin.read()", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


FILE = """from pylbr.files.output import AtomicFile
kept = AtomicFile(sys.argv[1])
kept.file.write(b"half" * 1000)"""
DIRECTORY = """import numpy as np
from lbrcore import BRANCH_DTYPE
from pylbr.trace.partition import PartitionedWriter
kept = PartitionedWriter(sys.argv[1], rows=10)
kept.write(np.zeros(25, BRANCH_DTYPE))"""


def partitioned(path):
    from pylbr.trace.partition import PartitionedWriter

    with PartitionedWriter(path):
        pass


@pytest.mark.parametrize(("what", "again"), [(FILE, write), (DIRECTORY, partitioned)])
def test_what_a_killed_process_left_goes_when_the_name_is_written_again(tmp_path, what, again):
    path, other = tmp_path / "a[b]*.x", tmp_path / "b*.x"
    killed, alive, besides = (writing(name, what) for name in (path, path, other))
    assert len(os.listdir(tmp_path)) == 3
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    besides.send_signal(signal.SIGKILL)
    besides.wait()
    again(path)
    assert path.exists()
    left = sorted(name.rpartition(".part")[0][:-13] for name in os.listdir(tmp_path)
                  if name.endswith(".part"))
    assert left == [".a[b]*.x", ".b*.x"], "one of a live process, one of another output"
    alive.kill()
    alive.communicate()
    if what is FILE:
        again(path)
        again(other)
        assert sorted(os.listdir(tmp_path)) == sorted([path.name, other.name])
    besides.communicate()
    killed.communicate()


@pytest.mark.parametrize("name", [".o.0123456789ab.part.json", ".o.0123456789AB.part",
                                  ".o.0123456789.part", ".oo.0123456789ab.part", "o.part"])
def test_nothing_of_another_form_is_removed(tmp_path, name):
    (tmp_path / name).touch()
    write(tmp_path / "o")
    assert sorted(os.listdir(tmp_path)) == sorted([name, "o"])


def test_a_link_of_that_form_is_left_alone(tmp_path):
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / ".o.0123456789ab.part").symlink_to("kept")
    write(tmp_path / "o")
    assert len(os.listdir(tmp_path)) == 3 and (tmp_path / "kept").read_bytes() == b"kept"


def test_two_threads_at_one_name(tmp_path):
    """Neither removes what the other is about to lock; one of both remains."""
    def many(data):
        for _ in range(200):
            write(tmp_path / "o", data)

    threads = [threading.Thread(target=many, args=(data,)) for data in (b"a" * 99, b"b" * 99)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.listdir(tmp_path) == ["o"]
    assert (tmp_path / "o").read_bytes() in (b"a" * 99, b"b" * 99)
