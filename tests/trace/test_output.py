"""Files under their names, and what already has the name."""

import os
import stat
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
