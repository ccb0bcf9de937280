"""A replay on a cluster whose workers are killed, as a command.

    python -m tests.sample.killed_workers [RUNS]

One is killed as the first task is submitted, another as the tenth is: others do their tasks again,
and the samples are those of one process.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

from distributed import Client

from pylbr import trace
from pylbr.sample import SampleSetup, sample
from pylbr.sample.backup import BackupExecutor
from pylbr.sample.job import ReplayJob
from pylbr.sample.schedule import sample_parts
from tests.clusters import local_cluster
from tests.sample.test_engines import listed
from tests.sample.test_parts import written


class Killing:
    """An executor that kills workers as tasks are submitted."""

    def __init__(self, executor, victims):
        self._executor, self._victims, self._begun = executor, victims, 0

    def submit(self, fn, *arguments):
        """Run a task."""
        self._begun += 1
        future = self._executor.submit(fn, *arguments)
        if self._begun in (1, 10):
            os.kill(self._victims.pop(), signal.SIGKILL)
        return future


def run(file):
    """Whether the samples are those of one process."""
    setup = SampleSetup.of("branches:u", 1009)
    job = ReplayJob(str(file), setup, 400_000, 40_009)
    with local_cluster() as cluster, Client(cluster) as client, trace.open(file) as source:
        victims = list(client.run(os.getpid).values())[:2]
        executor = BackupExecutor(client.get_executor(pure=False, retries=10), 5)
        same = listed(sample_parts(job, Killing(executor, victims), 3)) == listed(
            sample(source, setup))
        return same and not victims


def main():
    """So many runs; 1 if one differs."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        file = written(Path(folder))
        for number in range(1, runs + 1):
            if not run(file):
                print(f"run {number} differs")
                return 1
            print(f"{number} of {runs} the same", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
