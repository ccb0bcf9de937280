"""A replay by many workers: parts of the trace anywhere, the samples of one.

What a part's samples are depends on the state before it, which is known for the first part alone.
One worker goes from there through the trace, while the others describe parts from the end on.
Where they meet, the states before all parts that are left follow from the descriptions, by a scan;
then all workers sample those, and read only the rows around an overflow.  Every state is compared
with the one in which the part before really ended, and a part that began with another is sampled
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

from pylbr.perf.batch import SampleBatch
from pylbr.sample.description import Description, advanced
from pylbr.sample.job import PartSamples, ReplayJob, describe_task, sample_task
from pylbr.sample.sampler import Sampler, SamplerState

__all__ = ["InThisProcess", "sample_parts"]


class InThisProcess(Executor):
    """Runs each task when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run it."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  the caller finds it in the future
            future.set_exception(error)
        return future


def sample_parts(
    job: ReplayJob, executor: Executor | None = None, workers: int = 1,
    update: Callable[[int], object] = lambda rows: None,
) -> Iterator[SampleBatch]:
    """Samples of a whole trace, in the order of time; the same for every number of workers.

    Parameters
    ----------
    job : ReplayJob
    executor : concurrent.futures.Executor, optional
        What runs the tasks; this process by default.
    workers : int
        How many tasks it runs at a time.
    update : callable, optional
        Called with numbers of branches, which add up to those of the trace.

    Raises
    ------
    ConfigurationError
        The trace lacks what an event counts.
    TraceError
        The trace or a part is damaged, or a part cannot be written.
    """
    run = _Run(job, executor or InThisProcess(), workers, update)
    try:
        yield from run.samples()
    finally:
        run.cancel()


class _Run:
    def __init__(
        self, job: ReplayJob, executor: Executor, workers: int, update: Callable[[int], object]
    ) -> None:
        self._job, self._executor, self._update = job, executor, update
        self._store = job.store()
        sampler = Sampler(job.setup)
        self._state = sampler.state()  # before part `_front`, exact
        # A facility that is off has no summary; then one worker does it all.
        off = not job.setup.facility().active
        self._describers = 0 if off else workers - 1
        self._workers = workers
        self._front = 0
        self._back = job.parts  # parts from here on are being described, or are
        self._described: dict[int, Description] = {}
        self._describing: dict[Future[Description], int] = {}
        self._pending: set[Future[Any]] = set()

    def cancel(self) -> None:
        """Leave what is not done."""
        for future in self._pending:
            future.cancel()

    def samples(self) -> Iterator[SampleBatch]:
        """All of them."""
        yield from self._meet()
        yield from self._rest()

    def _submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future = self._executor.submit(task, self._job, *arguments)
        self._pending.add(future)
        return future

    def _rows(self, number: int) -> int:
        first, last = self._job.range(number)
        return last - first

    def _found(self, number: int, before: SamplerState, result: PartSamples) -> list[SampleBatch]:
        if result.batches is not None:
            return result.batches
        assert self._store is not None
        return self._store.samples(number, before)

    # Until the one that samples meets those that describe -------------------------------

    def _meet(self) -> Iterator[SampleBatch]:
        while self._front < self._back:
            sampling: Future[PartSamples] = self._submit(sample_task, self._front, self._state)
            self._collect({future for future in self._describing if future.done()})
            self._describe()
            while not sampling.done():
                running: list[Future[Any]] = [sampling, *self._describing]
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                self._collect(done)
                self._describe()
            self._pending.discard(sampling)
            result = sampling.result()
            yield from self._found(self._front, self._state, result)
            self._update(self._rows(self._front))
            self._front, self._state = self._front + 1, result.after

    def _describe(self) -> None:
        """Keep the workers busy that do not sample."""
        while len(self._describing) < self._describers and self._back > self._front + 1:
            self._back -= 1
            self._describing[self._submit(describe_task, self._back)] = self._back

    def _collect(self, done: set[Future[Any]]) -> None:
        for future in done & set(self._describing):
            self._pending.discard(future)
            number = self._describing.pop(future)
            self._described[number] = future.result()
            self._update(self._rows(number) // 2)

    # The rest ---------------------------------------------------------------------------

    def _rest(self) -> Iterator[SampleBatch]:
        """The parts that have been described, as many at a time as there are workers, and some."""
        guesses: dict[int, SamplerState] = {self._front: self._state}
        running: dict[int, Future[PartSamples]] = {}
        ahead = self._front
        for number in range(self._front, self._job.parts):
            while ahead < self._job.parts and (ahead == number or (
                    ahead < number + 2 * self._workers and self._is_described(ahead))):
                running[ahead] = self._begin(ahead, guesses)
                ahead += 1
            if guesses[number] != self._state:
                running[number].cancel()
                guesses[number] = self._state
                running[number] = self._submit(
                    sample_task, number, self._state, self._described[number])
            future = running.pop(number)
            result = future.result()
            self._pending.discard(future)
            yield from self._found(number, self._state, result)
            rows = self._rows(number)
            self._update(rows - rows // 2)
            self._state = result.after
            del self._described[number], guesses[number]

    def _is_described(self, number: int) -> bool:
        self._collect({future for future in self._describing if future.done()})
        return number in self._described

    def _begin(self, number: int, guesses: dict[int, SamplerState]) -> Future[PartSamples]:
        """Sample a part from the state that the descriptions give."""
        while not self._is_described(number):
            wait(self._describing, return_when=FIRST_COMPLETED)
        part = self._described[number]
        guesses[number + 1] = advanced(self._job.setup, guesses[number], part)
        return self._submit(sample_task, number, guesses[number], part)
