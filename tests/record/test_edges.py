"""Every edge of real programs exists in their code, and the ranges between hold no branch."""

import shutil

import pytest

from tests.record import oracle
from tests.record.conftest import need

pytestmark = pytest.mark.peer

SHELL = "for i in 1 2 3; do echo $i | cat; done; ls / | wc -l; exec /bin/echo done"


def checked(run):
    report = oracle.check(run.path)
    assert report.wrong == []
    assert b"without an explanation" not in run.result.stderr
    return report


def test_gzip(pylbr_record):
    run = pylbr_record("/bin/gzip", "-6", "-c", __file__)
    assert checked(run).edges > 2000
    assert run.result.stdout.startswith(b"\x1f\x8b")


def test_sqlite(pylbr_record):
    need(shutil.which("sqlite3"), "no sqlite3")
    run = pylbr_record("sqlite3", ":memory:", "create table t(a,b); insert into t values(6,7);"
                       "select sum(a*b) from t;")
    assert checked(run).edges > 8000
    assert run.result.stdout == b"42\n"


@pytest.mark.slow
def test_python(pylbr_record):
    need(shutil.which("/usr/bin/python3"), "no python3")
    run = pylbr_record("/usr/bin/python3", "-I", "-S", "-c", "print(sum(range(100)))")
    assert checked(run).edges > 20000
    assert run.result.stdout == b"4950\n"


def test_exceptions_of_cpp(build, pylbr_record):
    run = pylbr_record(build("exceptions.cc"))
    assert checked(run).edges > 4000
    assert run.result.stdout == b"801997 7\n"


def test_threads(build, pylbr_record):
    run = pylbr_record(build("threads.c", "-pthread"))
    assert checked(run).edges > 2000
    assert len(set(run.branches()["task"].tolist())) == 9


def test_shell_with_fork_and_exec(pylbr_record):
    run = pylbr_record("/bin/sh", "-c", SHELL)
    assert checked(run).edges > 10000
    assert run.result.stdout.splitlines()[-1] == b"done"
    names = {task.name for task in run.metadata.tasks} if run.branches() else set()
    assert {"sh", "cat", "ls", "wc", "echo"} <= names
