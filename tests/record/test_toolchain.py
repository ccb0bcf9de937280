"""What the recorder compiles is kept, and not trusted when it may be something else."""

import os
import shutil
from pathlib import Path

import pytest

from pylbr.record import toolchain
from tests.record.conftest import need

pytestmark = pytest.mark.peer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    need(shutil.which("cc") or shutil.which("gcc"), "no C compiler")
    need(shutil.which("qemu-x86_64"), "no qemu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pylbr"


def made_at(path):
    return Path(path).stat().st_mtime_ns, Path(path).read_bytes()


def test_built_once(cache):
    first = toolchain.tools()
    assert Path(first.plugin).is_relative_to(cache) and Path(first.launch).is_relative_to(cache)
    before = made_at(first.plugin), made_at(first.launch)
    assert toolchain.tools() == first
    assert (made_at(first.plugin), made_at(first.launch)) == before


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "writable by others", "text"])
def test_damaged_file_is_built_anew(cache, damage):
    first = toolchain.tools()
    plugin = Path(first.plugin)
    whole = plugin.read_bytes()
    if damage == "writable by others":
        plugin.chmod(0o666)
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1:]
        plugin.write_bytes({"flip": flipped, "cut": whole[:-100], "empty": b"",
                            "text": b"no plugin"}[damage])
    before = made_at(plugin)
    assert toolchain.tools() == first
    assert made_at(plugin) != before
    assert plugin.stat().st_mode & 0o022 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["cache", "folder", "file"])
def test_foreign_file_is_not_used(cache, what):
    first = toolchain.tools()
    plugin = Path(first.plugin)
    os.chown({"cache": cache, "folder": plugin.parent, "file": plugin}[what], 12345, 12345)
    again = Path(toolchain.tools().plugin)
    assert again.stat().st_uid == again.parent.stat().st_uid == os.geteuid()
    assert again.is_relative_to(cache) == (what == "file")


def test_cache_that_others_may_write_to_is_not_used(cache):
    toolchain.tools()
    cache.chmod(0o777)
    assert not Path(toolchain.tools().plugin).is_relative_to(cache)
