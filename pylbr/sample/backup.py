"""Tasks that are begun again elsewhere when nothing is heard of them.

A cluster does a task again when its worker is found to be lost.  Now and then one is lost without
that; and one slow machine must not hold up all others.  Tasks that leave nothing behind, or files
that appear when they are complete, may run twice: the first result counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, InvalidStateError
from contextlib import suppress
from typing import Any, Final

__all__ = ["BackupExecutor"]

_TIMES: Final = 3


class BackupExecutor(Executor):
    """An executor that submits a task again which takes much longer than the others.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        What runs the tasks.
    patience : float
        Seconds that are waited at least; else four times what the longest task took.
    """

    def __init__(self, executor: Executor, patience: float = 60.0) -> None:
        self._executor, self._patience, self._longest = executor, patience, 0.0
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a task."""
        outer: Future[Any] = Future()
        self._begin(outer, lambda: self._executor.submit(fn, *args, **kwargs), _TIMES)
        return outer

    def _begin(
        self, outer: Future[Any], submit: Callable[[], Future[Any]], left: int
    ) -> None:
        begun = time.monotonic()
        inner = submit()

        def done(inner: Future[Any]) -> None:
            if timer is not None:
                timer.cancel()
            with suppress(InvalidStateError, RuntimeError):  # another was first
                if outer.done():
                    pass
                elif inner.cancelled():
                    outer.cancel()
                    outer.set_running_or_notify_cancel()
                elif inner.exception() is not None:
                    outer.set_exception(inner.exception())
                else:
                    outer.set_result(inner.result())
            with self._lock:
                self._longest = max(self._longest, time.monotonic() - begun)

        def again() -> None:
            if not outer.done():
                with suppress(RuntimeError):  # the executor has been shut down
                    self._begin(outer, submit, left - 1)

        timer = None
        if left > 1:
            timer = threading.Timer(max(self._patience, 4 * self._longest), again)
            timer.daemon = True
            timer.start()
        inner.add_done_callback(done)
        outer.add_done_callback(lambda _: timer.cancel() if timer is not None else None)
        # Not of another's result: dask calls that back in its loop, where nothing may be cancelled.
        outer.add_done_callback(lambda _: inner.cancel() if outer.cancelled() else None)
