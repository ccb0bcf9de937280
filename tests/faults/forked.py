"""Runs of commands in children of a process that has imported what they import."""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.faults.runs import Run, running

__all__ = ["HANG", "OLD", "Forked"]

#: Seconds after which a run hangs.
HANG: Final = 30
#: What is under the name of the output before a run.
OLD: Final = b"what was there before\n"


def _nothing() -> None:
    pass


class Forked:
    """Runs, each in a child.

    Parameters
    ----------
    inputs : Path
        Directory of the runs' inputs.

    Attributes
    ----------
    folder : Path
        Where they run: in ``work``, with ``tmp`` for temporary files.
    target : subprocess.Popen
        The process that `record -p` attaches to.
    """

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.target = running()

    def close(self) -> None:
        """Remove what was written, and end the target."""
        self.target.kill()
        self.target.wait()
        shutil.rmtree(self.folder)

    def load(self, run: Run) -> None:
        """Import what a run imports."""
        self.clear()
        modules = self.folder / "modules"
        self.wait(self.start(run, after=lambda: modules.write_text(" ".join(sys.modules))))
        for name in modules.read_text().split():
            if name != "__main__" and name not in sys.modules:
                with suppress(ImportError):
                    importlib.import_module(name)

    def clear(self) -> None:
        """Make the directory empty."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for part in ("work", "tmp"):
            (self.folder / part).mkdir()

    def start(
        self, run: Run, before: Callable[[], object] = _nothing,
        after: Callable[[], object] = _nothing,
    ) -> int:
        """Begin a run; its process.

        Parameters
        ----------
        run : Run
        before, after : callable
            Called in the child, before and after the command.
        """
        child = os.fork()
        if not child:
            self._child(run, before, after)
        return child

    def wait(self, child: int) -> int:
        """Exit code of a run, or minus the signal's number; one that hangs is ended."""
        deadline = time.monotonic() + HANG
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGABRT)  # PYTHONFAULTHANDLER=1 shows where
                time.sleep(1)
            time.sleep(0.002)

    def _child(
        self, run: Run, before: Callable[[], object], after: Callable[[], object],
    ) -> None:
        """Ends the process, as the command ends it."""
        for number, name in ((1, "out"), (2, "error")):
            os.dup2(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(self.folder / "work")
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.folder / "tmp")
        sys.argv = ["pylbr", *(
            word.format(inputs=self.inputs, running=self.target.pid) for word in run.words)]
        from pylbr.cli import main

        before()
        code = 1
        try:
            code = main()
        except SystemExit as error:  # argparse's
            code = 2 if error.code else 0
        except BaseException:
            traceback.print_exc()
        after()
        gc.collect()  # as at the end of the interpreter, which here has the parent's frames too
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
