"""A dask.distributed cluster of this machine, for the tests."""

import os
from contextlib import contextmanager

import pytest


@contextmanager
def local_cluster(workers=3):
    """Workers, each a process of its own; any free port, as several runs may have one."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("distributed")
    from distributed import LocalCluster

    with LocalCluster(n_workers=workers, threads_per_worker=1, processes=True,
                      dashboard_address="127.0.0.1:0", memory_limit=0) as found:
        yield found
