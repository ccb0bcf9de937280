"""Servers under load, recorded without a restart; code of a JIT."""

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from lbrcore import BranchClass
from pylbr import trace
from tests.peers.peer_tools import LLVM, checked, perf2bolt
from tests.record.conftest import need
from tests.record.native.stacks import complaints, read
from tests.record.native.test_attach import attach, visible

pytestmark = [pytest.mark.peer, pytest.mark.slow]
RATE = ("-F", "5000", "--max-overhead", "100")


@contextmanager
def serving(program, place, *before):
    """The server of serving.c, and a function that asks it."""
    path = place / "socket"
    path.unlink(missing_ok=True)
    process = subprocess.Popen([*before, program, path])
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for _ in range(600):
        try:
            client.connect(str(path))
            break
        except OSError:
            time.sleep(0.05)

    def ask(lines):
        client.sendall("\n".join(lines).encode())
        return client.recv(1 << 16).decode().split()

    try:
        yield process, ask
        client.sendall(b"end")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        client.close()


def requests(n):
    return [[f"word{(i * 37 + k * k) % 3001} {i % 7 + k}" for k in range(60)] for i in range(n)]


def answers(asked):
    counts, found = {}, []
    for lines in asked:
        found.append([])
        for word, number in map(str.split, lines):
            counts[word] = counts.get(word, 0) + int(number)
            found[-1].append(str(counts[word]))
    return found


def taken(program, place):
    """Taken branches of the program itself for the same requests."""
    with serving(program, place, sys.executable, "-m", "pylbr", "record", "-q", "--full", "-o",
                 place / "full.arrow", "--") as (_, ask):
        assert [ask(lines)[-1] for lines in requests(40)] == [a[-1] for a in answers(requests(40))]
    with trace.open(place / "full.arrow") as source:
        own = next(m for m in source.metadata.modules if m.path == str(program))
        count = 0
        for chunk in source.chunks():
            at = chunk.column("from")
            inside = (at >= own.start) & (at < own.start + own.size)
            count += int((inside & (chunk.column("class") != BranchClass.NOT_TAKEN)).sum())
    return count


def test_bolt_optimises_a_server_that_was_not_restarted(native, build, tmp_path):
    need((LLVM[19] / "llvm-bolt").exists() and shutil.which("perf"), "no llvm-bolt")
    program = build("serving.c", "-O2", "-no-pie", "-fno-reorder-blocks-and-partition",
                    "-Wl,--emit-relocs")
    asked, got, ended = requests(300), [], threading.Event()
    with serving(program, tmp_path) as (process, ask):
        ask(["word0 0"])  # it has accepted the connection
        before = visible(process.pid)

        def load():
            got.extend(ask(lines) for lines in asked)
            while not ended.is_set():  # numbers of 0 change nothing
                ask([f"{line.split()[0]} 0" for line in asked[0]])

        client = threading.Thread(target=load)
        client.start()
        path, _ = attach(tmp_path, "-p", process.pid, "--duration", "3", *RATE)
        assert visible(process.pid) == before
        ended.set()
        client.join()
    assert got == answers(asked)
    assert perf2bolt(19, path, program, tmp_path / "fdata") == 0
    better = tmp_path / "better"
    checked(LLVM[19] / "llvm-bolt", program, "-o", better, f"-data={tmp_path / 'fdata'}",
            "-reorder-blocks=ext-tsp", "-reorder-functions=hfsort", "-split-functions")
    assert taken(better, tmp_path) < 0.9 * taken(program, tmp_path)


def test_redis_goes_on(native, tmp_path):
    need(shutil.which("redis-server") and shutil.which("redis-benchmark"), "no redis")
    server = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", tmp_path / "s", "--save", "",
         "--io-threads", "2"], stdout=subprocess.DEVNULL)
    ask = ("redis-cli", "-s", tmp_path / "s")
    for _ in range(200):
        if subprocess.run([*ask, "ping"], capture_output=True).stdout == b"PONG\n":
            break
        time.sleep(0.05)
    load = subprocess.Popen(
        ["redis-benchmark", "-s", tmp_path / "s", "-q", "-n", "10000000", "-c", "8", "-t",
         "set,lpush,zadd"], stdout=subprocess.DEVNULL)
    try:
        before = visible(server.pid)
        path, _ = attach(tmp_path, "-p", server.pid, "--duration", "2", *RATE)
        after = visible(server.pid)
        assert after[1] == before[1]  # signals
        assert not [line for line in Path(f"/proc/{server.pid}/maps").read_text().splitlines()
                    if "rwx" in line or "/memfd:" in line]
        assert subprocess.run([*ask, "set", "k", "v"], capture_output=True).stdout == b"OK\n"
        assert load.poll() is None
        found = read(path)
        edges, ranges, wrong = complaints(found)
        assert found.count > 50 and edges > 50 and ranges > 50 and not wrong
    finally:
        load.kill()
        load.wait()
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0


def test_code_of_a_jit_has_names(native_record, tmp_path, monkeypatch, capsys):
    from pylbr.cli import main

    need(shutil.which("node"), "no node")
    monkeypatch.chdir(tmp_path)  # node leaves a log where it runs
    script = tmp_path / "hot.js"
    script.write_text("function hotInner(a, i) { return (a * 31 + i) % 65521 }\n"
                      "function hotOuter(n) { let s = 0;\n"
                      "for (let i = 0; i < n; i++) s = hotInner(s, i); return s }\n"
                      "let t = 0; for (let k = 0; k < 40; k++) t += hotOuter(500000);\n"
                      "console.log(process.pid, t)")
    path, result = native_record("node", "--perf-basic-prof", script, options=RATE)
    made = Path(f"/tmp/perf-{result.stdout.split()[0].decode()}.map")
    try:
        assert main(["report", str(path), "--by", "functions", "--json"]) == 0
        assert "hotOuter" in capsys.readouterr().out
    finally:
        made.unlink()
