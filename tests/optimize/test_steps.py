"""The steps of ``pylbr optimize`` draw a bar: other programs work in them and report nothing."""

import os
import pty
import subprocess
import sys
import textwrap

PROGRAM = textwrap.dedent("""
    import time
    from pylbr.cli.progress import lasting
    with lasting("perf2bolt"):
        time.sleep(1.5)
    with lasting("counting, 2 of 2", 3.0):
        time.sleep(1.5)
    with lasting("short"):
        pass
""")


def test_a_step_shows_its_name_and_the_time_left():
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=theirs,
                          env={**kept, "TERM": "xterm", "COLUMNS": "100"}) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # EIO: the last writer has closed it
                break
            if not part:
                break
            seen += part
    os.close(ours)
    assert process.returncode == 0
    assert b"perf2bolt" in seen and b"counting, 2 of 2" in seen
    assert b"about 0:02 left" in seen or b"about 0:01 left" in seen
    assert b"short" not in seen  # over within a second


def test_nothing_is_drawn_into_a_file():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert done.stderr == b""
