"""For how long attaching stops a program, and leaving it.

    python -m tests.record.native.stops [--rounds 10]

From the first thread that is asked to stop until the last one continues, by the recorder's clock:
median and longest, of a program with 1, 9 and 64 threads that compute.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import pylbr.record.native.session as session
from pylbr.record.recorded import record_program

SOURCE = """
#include <pthread.h>
#include <stdlib.h>
static volatile unsigned long sum[64];
static void *work(void *at) {
    for (;;)
        for (int i = 0; i < 1000; i++)
            *(volatile unsigned long *)at += i % 7 ? i : 1;
}
int main(int argc, char **argv) {
    pthread_t t;
    for (int i = 1; i < atoi(argv[1]); i++)
        pthread_create(&t, 0, work, (void *)&sum[i]);
    work((void *)&sum[0]);
}
"""
THREADS = (1, 9, 64)


class Watch:
    """Notes the time between stops and the end of each."""

    def __init__(self, module):
        self.found, self._began = [], 0.0
        stop, go = module.stopped_threads, module.let_go

        def stopped_threads(pid):
            self._began = time.monotonic()
            return stop(pid)

        def let_go(tracees):
            go(tracees)
            self.found.append(time.monotonic() - self._began)

        module.stopped_threads, module.let_go = stopped_threads, let_go


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    watch = Watch(session)
    with tempfile.TemporaryDirectory() as place:
        program = Path(place) / "threads"
        subprocess.run(["gcc", "-O1", "-w", "-x", "c", "-", "-o", program, "-lpthread"],
                       input=SOURCE.encode(), check=True)
        for threads in THREADS:
            watch.found.clear()
            for _ in range(rounds):
                running = subprocess.Popen([program, str(threads)])
                try:
                    time.sleep(0.1)
                    record_program([], Path(place) / "data", pid=running.pid, seconds=0.3,
                                   engine="native")
                finally:
                    running.kill()
                    running.wait()
            for name, found in (("attach", watch.found[::2]), ("leave", watch.found[1::2])):
                times = [1000 * seconds for seconds in found]
                print(f"{threads} threads, {name}: median {statistics.median(times):.1f} ms, "
                      f"longest {max(times):.1f} ms", flush=True)


if __name__ == "__main__":
    main()
