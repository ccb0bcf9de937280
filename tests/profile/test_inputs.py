"""Any number of inputs, from anywhere: merge, convert and report take the same ones."""

import http.server
import json
import shutil
import threading
import time

import pytest

from pylbr.cli import main
from pylbr.errors import TraceError
from pylbr.profile import remote
from pylbr.profile.inputs import inputs_of
from pylbr.profile.merge import count_input
from tests.profile.test_merge import LIBRARY, merge, recording

BASE = 0x7F00_0000_0000


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A directory with five recordings of a library that lies elsewhere in each."""
    place = tmp_path_factory.mktemp("fleet")
    for seed in range(5):
        recording(place / f"{seed}.perf.data", seed, BASE + (seed << 32))
    return place


def test_convert_adds_up_as_merge_does(fleet, tmp_path):
    names = sorted(map(str, fleet.iterdir()))
    for number, words in enumerate(([*names], [fleet], [f"{fleet}/*.data"],
                                    [names[0], "--weighted-input", f"3,{names[1]}"])):
        words = list(map(str, words))
        one, other = tmp_path / f"{number}.preagg", tmp_path / f"{number}.merged.preagg"
        assert main(["convert", *words, "-o", str(one), "--binary", LIBRARY, "-j", "2"]) == 0
        assert merge(*words, "-o", other) == 0
        assert one.read_bytes() == other.read_bytes() != b""
    assert main(["convert", str(one), "-o", str(tmp_path / "a.profgen.txt"),
                 "--binary", LIBRARY]) == 0
    assert merge(one, "-o", tmp_path / "b.profgen.txt") == 0
    assert (tmp_path / "a.profgen.txt").read_bytes() == (tmp_path / "b.profgen.txt").read_bytes()


def report(capsys, *words):
    assert main(["report", *map(str, words), "--json", "-n", "100000"]) == 0
    found = json.loads(capsys.readouterr().out)
    # What is in no file is a place of its own in each process.
    found["rows"] = [row for row in found[found_view(words)] if row.get("from_symbol") != "0x10"]
    return found


def found_view(words):
    return words[words.index("--by") + 1] if "--by" in words else "edges"


def keyed(found):
    """Rows without what a sum has not: pid; a row's share follows from its count."""
    return sorted(json.dumps({k: v for k, v in row.items() if k not in ("pid", "share")})
                  for row in found["rows"])


@pytest.mark.parametrize("view", ["edges", "functions", "runs", "mispredicts", "history"])
def test_a_report_of_copies_is_the_report_times_their_number(tmp_path, capsys, view):
    """The same stacks of a process that lay elsewhere add up to one row."""
    names = [recording(tmp_path / f"{i}.perf.data", 1, BASE + (i << 32)) for i in range(3)]
    whole = report(capsys, *names, "--by", view)
    heavy = report(capsys, "--weighted-input", f"3,{names[0]}", "--by", view)
    assert keyed(whole) == keyed(heavy) != []
    alone = report(capsys, names[0], "--by", view)
    assert len(alone["rows"]) == len(whole["rows"])
    assert whole["branches"] == 3 * alone["branches"] and whole["samples"] == 3 * alone["samples"]
    for name in {"count", "mispredicted", "branches", "entered"} & set(alone["rows"][0]):
        counts = [sorted(row[name] for row in found["rows"]) for found in (alone, whole)]
        assert [3 * count for count in counts[0]] == counts[1], name
    assert [row.get("mispredict_rate") for row in whole["rows"]] == [
        row.get("mispredict_rate") for row in heavy["rows"]]


def test_a_report_counts_what_a_merge_counts(fleet, capsys):
    found = report(capsys, fleet)
    inside = sum(row["count"] for row in found["edges"])
    assert inside == found["branches"] == 5 * 240
    edges = {}
    for name in sorted(fleet.iterdir()):
        for edge, count in count_input(str(name), LIBRARY).edges.items():
            edges[edge] = edges.get(edge, 0) + count
    assert sorted(edges.values()) == sorted(row["count"] for row in found["edges"])
    addresses = {f"{last:#x}" for _, last in edges if last >= 0}
    assert {row["to"] for row in found["edges"]} == addresses


def test_what_cannot_be_a_sum_is_refused(fleet, tmp_path, capsys):
    names = sorted(map(str, fleet.iterdir()))
    for words, what in (
        ([*names, "-o", str(tmp_path / "o.perf.data")], "one after the other"),
        ([*names, "-o", str(tmp_path / "o.preagg")], "--binary"),
        ([*names, "-o", str(tmp_path / "o.preagg"), "--binary", LIBRARY, "--from", "csv"],
         "--from"),
        ([str(tmp_path / "none*"), "-o", "o.preagg"], "matches no file"),
    ):
        assert main(["convert", *words]) == 2
        assert what in capsys.readouterr().err
    assert main(["report", names[0], names[0]]) == 2
    assert "twice" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["merge", "convert", "report"])
def test_the_same_bytes_under_two_names_are_refused(fleet, tmp_path, capsys, command):
    """A copy is named with what it is a copy of; a weight says that it is meant."""
    one, other = fleet / "1.perf.data", tmp_path / "copy.perf.data"
    shutil.copy(one, other)
    (tmp_path / "none.preagg").touch()
    out = [] if command == "report" else ["--binary", LIBRARY, "-o", str(tmp_path / "o.preagg")]
    for words in ([fleet, other], [one, "--weighted-input", f"3,{other}"]):
        assert main([command, *map(str, words), *out]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "--weighted-input 2,FILE" in said
        assert f"{other}: holds the same bytes as {one}" in said
    assert not (tmp_path / "o.preagg").exists()
    # Of the same size, but another file.
    data = bytearray(other.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    assert main([command, str(fleet), str(other), *out]) == 0
    capsys.readouterr()


def test_a_directory_that_is_one_input_is_compared_whole(fleet, tmp_path):
    from pylbr.profile.inputs import _refuse_copies

    for name in "ab":
        shutil.copytree(fleet, tmp_path / name)
    with pytest.raises(TraceError, match="the same bytes"):
        _refuse_copies([str(tmp_path / "a"), str(tmp_path / "b")])
    shutil.copy(fleet / "0.perf.data", tmp_path / "b" / "1.perf.data")
    _refuse_copies([str(tmp_path / "a"), str(tmp_path / "b")])


# URLs


@pytest.fixture
def memory(fleet):
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for path in fleet.iterdir():
        system.pipe_file(f"/fleet/{path.name}", path.read_bytes())
    yield system
    system.rm("/fleet", recursive=True)


class Server(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if "error" in self.path:
            self.send_error(500)
        elif "slow" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.server.gate.wait(20)
        elif "short" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
        elif "huge" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 60))
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def web(fleet):
    pytest.importorskip("aiohttp")
    pytest.importorskip("fsspec")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *a: Server(*a, directory=str(fleet)))
    server.gate, server.daemon_threads = threading.Event(), True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_urls_give_the_bytes_that_the_files_give(fleet, memory, tmp_path, capsys):
    assert merge(fleet, "-o", tmp_path / "files.preagg") == 0
    expected = (tmp_path / "files.preagg").read_bytes()
    for words in (["memory://fleet/"], ["memory://fleet/*.data"], [f"file://{fleet}/"],
                  [f"file://{fleet}/0*", *(f"memory://fleet/{i}.perf.data" for i in range(1, 5))]):
        assert merge(*words, "-o", tmp_path / "urls.preagg") == 0
        assert (tmp_path / "urls.preagg").read_bytes() == expected
    assert merge(f"file://{fleet}/", "-o", tmp_path / "jobs.preagg", "-j", "2",
                 "--resume", tmp_path / "parts") == 0
    assert (tmp_path / "jobs.preagg").read_bytes() == expected
    assert len(list((tmp_path / "parts").iterdir())) == 5
    assert report(capsys, "memory://fleet/*")["edges"] == report(capsys, fleet)["edges"]
    one = "memory://fleet/0.perf.data"
    for source, name in ((one, "u"), (fleet / "0.perf.data", "f")):
        assert main(["convert", str(source), "-o", str(tmp_path / f"{name}.script.csv")]) == 0
    assert (tmp_path / "u.script.csv").read_bytes() == (tmp_path / "f.script.csv").read_bytes()


def test_resume_counts_a_url_again_whose_file_changed(fleet, tmp_path):
    pytest.importorskip("fsspec")
    name, url = tmp_path / "x.perf.data", f"file://{tmp_path}/x.perf.data"
    found = []
    for number in (0, 1, 1):
        shutil.copy(fleet / f"{number}.perf.data", name)
        assert merge(url, "-o", tmp_path / "o.preagg", "--resume", tmp_path / "parts") == 0
        found.append((tmp_path / "o.preagg").read_bytes())
    assert found[0] != found[1] == found[2]


def test_a_web_server(fleet, web, tmp_path):
    assert merge(fleet, "-o", tmp_path / "files.preagg") == 0
    urls = [f"{web}/{i}.perf.data" for i in range(4)] + [f"{web}/4.perf.data?version=3"]
    assert merge(*urls, "-o", tmp_path / "urls.preagg") == 0
    assert merge(f"{web}/", "-o", tmp_path / "folder.preagg") == 0
    assert (tmp_path / "files.preagg").read_bytes() == (tmp_path / "urls.preagg").read_bytes()
    assert (tmp_path / "files.preagg").read_bytes() == (tmp_path / "folder.preagg").read_bytes()


@pytest.mark.parametrize(("name", "what"), [
    ("error", "500"), ("none", "no such file"), ("slow", "nothing has arrived"),
    ("short", "cannot be read"), ("huge", "room"),
])
def test_a_faulty_server_gives_one_line(fleet, web, tmp_path, capsys, monkeypatch, name, what):
    monkeypatch.setattr(remote, "PATIENCE", 0.5)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    begun = time.monotonic()
    assert merge(fleet / "0.perf.data", f"{web}/{name}", "-o", tmp_path / "o.preagg") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{web}/{name}" in said and what in said
    assert not list(tmp_path.iterdir()) and time.monotonic() - begun < 15


def test_a_damaged_file_is_named_by_its_url(memory, tmp_path, capsys):
    memory.pipe_file("/fleet/bad.perf.data", b"PERFILE2 and no more")
    for command in (["merge", "-o", str(tmp_path / "o.preagg"), "--binary", LIBRARY],
                    ["convert", "-o", str(tmp_path / "o.csv")], ["report"]):
        assert main([command[0], "memory://fleet/bad.perf.data", *command[1:]]) == 2
        said = capsys.readouterr().err
        assert "memory://fleet/bad.perf.data" in said and "pylbr-" not in said
    with pytest.raises(TraceError, match="matches no file"):
        inputs_of(["memory://fleet/none*"])
    with pytest.raises(TraceError, match="cannot be read"):
        inputs_of(["nosuchprotocol://x/*"])
