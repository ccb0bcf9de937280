"""An S3 server of this machine: recordings there, and what it does wrong (group `objectstore`)."""

import http.server
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from tests.profile.test_merge import LIBRARY, fleet, merge  # noqa: F401

pytestmark = pytest.mark.slow


class Between(http.server.BaseHTTPRequestHandler):
    """Passes requests on to the server, but not all of them as they should be."""

    protocol_version = "HTTP/1.1"

    def _pass(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = self.path.partition("?")[0]
        if "hangs" in name and self.command == "GET":
            self.server.gate.wait(60)
            self.close_connection = True
            return
        if "fails" in name or "unsteady" in name and self.server.failures.pop(name, 2) > 1:
            self._answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
            self.server.failures[name] = 1
            return
        headers = {key: value for key, value in self.headers.items() if key != "Host"}
        request = urllib.request.Request(self.server.behind + self.path, body or None, headers,
                                         method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                data = answer.read()
                if "short" in name and len(data) > 100:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[:-50])
                    self.close_connection = True
                    return
                self._answer(answer.status, answer.headers, data)
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.headers, error.read())

    do_GET = do_PUT = do_HEAD = do_POST = _pass  # noqa: N815

    def _answer(self, status, headers, data):
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() not in ("content-length", "transfer-encoding", "connection", "server",
                                   "date"):
                self.send_header(key, value)
        size = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", size or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def store(fleet):  # noqa: F811
    """Environment with which s3fs finds a bucket with the recordings."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    code = ("import sys\nfrom moto.server import ThreadedMotoServer\n"
            "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)\nserver.start()\n"
            "print(*server.get_host_and_port(), flush=True)\nsys.stdin.read()\nserver.stop()\n")
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    host, port = process.stdout.readline().split()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Between)
    server.behind, server.daemon_threads = f"http://{host}:{port}", True
    server.gate, server.failures = threading.Event(), {}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02},
                              daemon=True)
    thread.start()

    def put(name, data=b""):
        request = urllib.request.Request(f"{server.behind}/{name}", data, method="PUT", headers={
            "Content-Type": "application/octet-stream"})
        urllib.request.urlopen(request, timeout=30).close()

    put("fleet")
    files = sorted(fleet.iterdir())
    for path in files:
        put(f"fleet/day/{path.name}", path.read_bytes())
    for name in ("hangs", "fails", "unsteady", "short"):
        put(f"fleet/{name}.perf.data", files[0].read_bytes())
    yield os.environ | {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "*",
    }
    server.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()
    process.communicate(timeout=30)


def remotely(store, place, *words, patience=30.0):
    """Run ``pylbr merge`` into a file of `place`."""
    code = ("import sys\nfrom pylbr.profile import remote\n"
            f"remote.PATIENCE = {patience}\n"
            "from pylbr.cli import main\nsys.exit(main(sys.argv[1:]))")
    return subprocess.run(
        [sys.executable, "-c", code, "merge", *map(str, words), "-o", place / "o.preagg",
         "--binary", LIBRARY], capture_output=True, text=True, timeout=120, check=False,
        env=store | {"TMPDIR": str(place)})


@pytest.mark.parametrize("words", [["s3://fleet/day/"], ["s3://fleet/day/*.data", "-j", "2"]])
def test_a_bucket_gives_the_bytes_that_the_files_give(fleet, store, tmp_path, words):  # noqa: F811
    assert merge(fleet, "-o", tmp_path / "files.preagg") == 0
    done = remotely(store, tmp_path, *words, "--resume", tmp_path / "parts")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.preagg").read_bytes() == (tmp_path / "files.preagg").read_bytes()
    assert len(list((tmp_path / "parts").iterdir())) == 5


def test_two_objects_with_the_same_bytes_are_refused(store, tmp_path):
    done = remotely(store, tmp_path, "s3://fleet/day/", "s3://fleet/short.perf.data")
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert done.stderr.count("\n") == 1 and "the same bytes as s3://fleet/day/0" in done.stderr


@pytest.mark.parametrize("name", ["unsteady", "short"])
def test_what_fails_once_is_asked_for_again(fleet, store, tmp_path, name):  # noqa: F811
    done = remotely(store, tmp_path, f"s3://fleet/{name}.perf.data")
    assert done.returncode == 0, done.stderr
    assert merge(fleet / "0.perf.data", "-o", tmp_path / "f.preagg") == 0
    assert (tmp_path / "o.preagg").read_bytes() == (tmp_path / "f.preagg").read_bytes()


@pytest.mark.parametrize(("name", "what"), [
    ("hangs", "nothing has arrived for 3 seconds"), ("fails", "InternalError"),
    ("none", "no such file"),
])
def test_a_faulty_store_gives_one_line_that_names_the_object(store, tmp_path, name, what):
    begun = time.monotonic()
    url = f"s3://fleet/{name}.perf.data"
    done = remotely(store, tmp_path, "s3://fleet/day/1.perf.data", url,
                    patience=3.0 if name == "hangs" else 30.0)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert done.stderr.count("\n") == 1 and url in done.stderr and what in done.stderr, done.stderr
    assert time.monotonic() - begun < 60
