"""What the guest's file system is made of, where the machine has none of it installed."""

import os
from itertools import islice

import pytest

from pylbr.errors import UnsupportedFeature
from pylbr.linux import apt, debian
from pylbr.linux.libraries import libraries

pytestmark = pytest.mark.peer

PERF = "usr/bin/perf"


def test_perfs_libraries_come_from_the_packages_that_it_depends_on():
    root = debian.fetch("linux-perf")
    found = libraries([root / PERF], (root,), debian.dependencies("linux-perf"))
    names = {place.rsplit("/", 1)[1].split(".so")[0] for place in found}
    assert {"libc", "libdw", "libelf", "libopencsd_c_api", "libslang"} <= names
    cache = root.parent
    assert all(file.is_relative_to(cache) for file in found.values())


def test_packages_are_fetched_as_long_as_something_is_missing():
    assert len(list(islice(debian.dependencies("linux-perf"), 2))) == 2
    root = debian.fetch("linux-perf")
    with pytest.raises(UnsupportedFeature, match="which is in none of the usual folders"):
        libraries([root / PERF], (root,))


def test_a_file_is_found_where_a_release_has_it(tmp_path, monkeypatch):
    """Debian 13's busybox-static has usr/bin/busybox alone."""
    monkeypatch.setattr(debian, "root_of", lambda package, file: tmp_path)
    with pytest.raises(UnsupportedFeature, match="b has no bin/b and no usr/bin/b"):
        debian.file_of("b", "bin/b", "usr/bin/b")
    for place in ("usr/bin/b", "bin/b"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
        assert debian.file_of("b", "bin/b", "usr/bin/b") == tmp_path / place


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Asks for words; what apt says, and how often it was asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "apt").mkdir()
    (tmp_path / "apt" / "sources.list").write_text("")
    calls = []

    def say(*command):
        calls.append(command)
        return f"said {len(calls)}"

    def ask(*words):
        return apt.answer(words, say, (str(tmp_path / "apt"), str(tmp_path / "no-such")))

    return ask, calls


def test_apt_is_asked_once(asked):
    ask, calls = asked
    assert [ask("show", "a"), ask("show", "b"), ask("show", "a")] == ["said 1", "said 2", "said 1"]
    assert calls == [("apt-cache", "show", "a"), ("apt-cache", "show", "b")]


@pytest.mark.parametrize("change", [
    lambda path: os.utime(path / "apt" / "sources.list", ns=(5, 5)),
    lambda path: (path / "apt" / "new").write_text(""),
    lambda path: (path / "no-such").write_text(""),
    lambda path: [file.write_text("{") for file in path.glob("cache/pylbr/debian/*")],
    lambda path: [file.write_text('["state"]') for file in path.glob("cache/pylbr/debian/*")],
    lambda path: [file.write_bytes(b"\xff") for file in path.glob("cache/pylbr/debian/*")],
    lambda path: [file.write_text(file.read_text().replace('"answer"', '"said"'))
                  for file in path.glob("cache/pylbr/debian/*")],
    lambda path: [file.write_text(file.read_text().replace('"said 1"', "1"))
                  for file in path.glob("cache/pylbr/debian/*")],
    lambda path: [file.write_text("[" * 100_000) for file in path.glob("cache/pylbr/debian/*")],
], ids=["touched", "added", "appeared", "cut", "other", "no text", "no answer", "a number", "deep"])
def test_apt_is_asked_again_after_a_change(asked, tmp_path, change):
    ask, _ = asked
    assert ask("show", "a") == "said 1"
    change(tmp_path)
    assert ask("show", "a") == ask("show", "a") == "said 2"


def test_a_cache_that_cannot_be_written(asked, tmp_path):
    ask, _ = asked
    (tmp_path / "cache").write_text("")
    assert [ask("show", "a"), ask("show", "a")] == ["said 1", "said 2"]
