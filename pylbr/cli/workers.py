"""What runs the tasks of a command: this process, others of this machine, or a cluster's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NamedTuple

from pylbr.errors import CommandError
from pylbr.extras import needed
from pylbr.worker import begin_worker

__all__ = ["Workers", "add_workers", "workers"]

#: Seconds to wait for a scheduler.
_PATIENCE: Final = 10
#: How often a task is done again whose worker was lost.
_RETRIES: Final = 10


class Workers(NamedTuple):
    """An executor and how many tasks it runs at a time; None: this process, one."""

    executor: Executor | None
    number: int


def add_workers(parser: argparse.ArgumentParser, what: str, *short: str) -> None:
    """``--jobs``, in `short` too, and ``--dask``; `what` the workers do."""
    parser.add_argument(*short, "--jobs", metavar="N", type=int, default=1,
                        help=f"processes that {what} (default: 1)")
    parser.add_argument("--dask", metavar="ADDRESS",
                        help=f"the workers of a dask.distributed cluster {what}, whose scheduler "
                        "has this address and whose files are the same (pip install 'pylbr[dask]')")


@contextmanager
def workers(args: argparse.Namespace, tasks: int) -> Iterator[Workers]:
    """What `args` name, for at most `tasks` tasks at a time.

    Raises
    ------
    CommandError
        No scheduler answers, a worker has another version or was ended from outside.
    """
    if args.jobs < 1:
        raise CommandError("--jobs: at least 1")
    if args.dask and args.jobs != 1:
        raise CommandError("--jobs and --dask: give one of them")
    if args.dask:
        with _cluster(args.dask) as found:
            yield found
        return
    count = min(args.jobs, tasks)
    if count <= 1:
        yield Workers(None, 1)
        return
    try:
        with ProcessPoolExecutor(count, initializer=begin_worker) as executor:
            yield Workers(executor, count)
    except BrokenProcessPool as error:
        raise CommandError(
            "a worker process was ended from outside (was there enough memory?); nothing was "
            "written; fewer --jobs need less, and --resume DIRECTORY keeps what is done") from error


@contextmanager
def _cluster(address: str) -> Iterator[Workers]:
    """The workers of a dask.distributed scheduler."""
    from pylbr.sample.backup import BackupExecutor

    distributed = needed("distributed")
    try:
        client = distributed.Client(address, timeout=_PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise CommandError(f"--dask {address}: no scheduler answers there ({error})") from error
    with client:
        _check_versions(client, address)
        try:
            executor = BackupExecutor(client.get_executor(pure=False, retries=_RETRIES))
            yield Workers(executor, sum(client.nthreads().values()))
        except (distributed.KilledWorker, distributed.client.FutureCancelledError) as error:
            raise CommandError(
                f"--dask {address}: workers were lost again and again, or the scheduler was; "
                "nothing was written; --resume DIRECTORY keeps what is done") from error


def _check_versions(client: Any, address: str) -> None:
    """Tasks are code of this pylbr: others might do something else, in silence.

    Raises
    ------
    CommandError
        There are no workers, or one of them has another pylbr or another Python.
    """
    found = client.run(_version, on_error="return")
    if not found:
        raise CommandError(f"--dask {address}: the scheduler has no workers")
    here = _version()
    others = {worker: there for worker, there in sorted(found.items()) if there != here}
    if others:
        worker, there = next(iter(others.items()))
        if isinstance(there, Exception):
            there = f"none that can answer ({' '.join(str(there).split())[:200]})"
        more = f", and {len(others) - 1} others differ" if len(others) > 1 else ""
        raise CommandError(f"--dask {address}: the worker {worker} has {there}, and here is "
                           f"{here}{more}; install the same on all")


def _version() -> str:
    try:
        own = f"pylbr {version('pylbr')}"
    except PackageNotFoundError:
        own = "no installed pylbr"
    return f"{own} on Python {sys.version_info.major}.{sys.version_info.minor}"
