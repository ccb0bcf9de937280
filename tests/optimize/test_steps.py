"""The steps of ``pylbr optimize`` draw a bar: other programs work in them and report nothing."""

import os
import pty
import re
import subprocess
import sys
import textwrap

from tests.terminals import written

PROGRAM = textwrap.dedent("""
    import time
    from pylbr.cli.progress import lasting
    with lasting("perf2bolt"):
        time.sleep(1.5)
    with lasting("counting, 2 of 2", 600.0):
        time.sleep(1.5)
    with lasting("short"):
        pass
""")


def test_a_step_shows_its_name_and_the_time_left():
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=theirs,
                          env={**kept, "TERM": "xterm", "COLUMNS": "100"}) as process:
        seen = written(ours, theirs)
    assert process.returncode == 0
    assert b"perf2bolt" in seen and b"counting, 2 of 2" in seen
    assert re.search(rb"about 9:5\d left", seen)
    assert b"short" not in seen  # over within a second


def test_nothing_is_drawn_into_a_file():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert done.stderr == b""
