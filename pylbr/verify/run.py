"""Suites of searches, several processes at once, and their tables."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import Array, active_children
from pathlib import Path
from typing import Any, TypeVar

from pylbr.arbitration import register_file
from pylbr.errors import LbrError
from pylbr.files.output import write_text
from pylbr.tables import Table, print_table
from pylbr.verify import script
from pylbr.verify.bugs import Caught
from pylbr.verify.models import Configuration, Result, explore
from pylbr.verify.properties import NAMES, TITLES
from pylbr.verify.script import Outcome
from pylbr.verify.story import Story, story_of
from pylbr.verify.suites import EQUIVALENT, FlawResult, by_design
from pylbr.verify.timeline import timeline
from pylbr.verify.walks import Walked
from pylbr.worker import begin_worker

__all__ = ["bug_table", "flaw_table", "in_parallel", "json_of", "legend", "print_with_legend",
           "property_table", "save_each", "save_stories", "search", "state_table",
           "table", "walk_table", "what_if_table"]

Task = TypeVar("Task")
Answer = TypeVar("Answer")
Progress = Callable[[int], None]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_done: Sequence[int] = ()           # of each task, in a worker: shared with the parent


def search(configuration: Configuration, report: Progress) -> Result:
    """Explore, after what the policy breaks by design too; `report` gets the states so far."""
    return explore(configuration, ignore=by_design(configuration.policy),
                   report=lambda states, _: report(states))


def _share(done: Sequence[int], files: Sequence[str]) -> None:
    """Begin a worker."""
    global _done
    _done = done
    begin_worker()
    for path in files:
        register_file(path)


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """Raise the signals that come meanwhile at the end."""
    came: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _SIGNALS if here}
    before = {n: handler for n, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def _ended(future: Future) -> bool:
    """Wait a little.  A signal that raised here could leave a lock of the future's taken for good,
    and the pool's own thread would then never end."""
    with _signals_later():
        return not wait([future], timeout=0.2).not_done


def _in_worker(run: Callable[[Task, Progress], Answer], number: int, task: Task) -> Answer:
    def report(done: int) -> None:
        _done[number] = done  # type: ignore[index]

    return run(task, report)


def in_parallel(
    run: Callable[[Task, Progress], Answer], tasks: Sequence[Task], jobs: int, report: Progress,
    files: Sequence[str] = (),
) -> Iterator[Answer]:
    """Run each task in one of `jobs` processes; answers in the order of the tasks.

    Parameters
    ----------
    run : callable
        Of a module's top level; is passed the task and a function that reports progress.
    report : callable
        Called some times per second with how much is done of all tasks together.
    files : sequence of str
        Of policies, to be registered in each process.
    """
    done = Array("Q", len(tasks), lock=False)
    with ProcessPoolExecutor(jobs, initializer=_share, initargs=(done, files)) as pool:
        try:
            with _signals_later():  # a pool cannot be interrupted while it starts
                futures = [pool.submit(_in_worker, run, n, task) for n, task in enumerate(tasks)]
            for future in futures:
                while not _ended(future):
                    report(sum(done))
                answer = future.result()
                report(sum(done))
                yield answer
        except BrokenProcessPool:
            raise LbrError(
                "a process of the search was killed, perhaps because memory ran out; use fewer "
                "--jobs, or search less") from None
        except BaseException:  # an interrupt above all: what runs is not waited for
            for worker in active_children():
                worker.kill()
            raise


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Table whose plain text is Markdown."""
    return Table(rows, head, markdown=True)


def state_table(results: Sequence[Result]) -> Table:
    """Size of each search."""
    return table(
        ("policy", "CPUs", "guests", "depth", "states", "transitions", "diameter", "fixpoint",
         "seconds"),
        [(r.configuration.policy + "".join(f" +{f}" for f in r.configuration.flaws),
          str(r.configuration.cpus), str(r.configuration.guests), str(r.configuration.depth),
          f"{r.states:,}", f"{r.transitions:,}", str(r.diameter),
          "yes" if r.complete else "no", f"{r.seconds:.1f}") for r in results])


def property_table(
    results: Sequence[Result], properties: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Which property holds where; a number is the length of the shortest way to break it.

    «holds» stands only where nothing is broken: elsewhere what follows a broken property
    was not searched, and the others were just «not seen» broken.

    Parameters
    ----------
    properties : mapping, optional
        Name of each -> the policies that have it; by default all have all.
    """
    names = sorted({r.configuration.policy: 0 for r in results},
                   key=[r.configuration.policy for r in results].index)
    rows = []
    for name, having in (properties or dict.fromkeys(NAMES, names)).items():
        row = [name]
        for policy in names:
            steps = [len(r.broken[name][0]) for r in results
                     if r.configuration.policy == policy and name in r.broken]
            clean = all(r.complete and not r.broken for r in results
                        if r.configuration.policy == policy)
            row.append("-" if policy not in having else str(min(steps)) if steps
                       else "holds" if clean else "not seen")
        rows.append(row)
    return table(["", *names], rows)


def flaw_table(results: Sequence[FlawResult]) -> Table:
    """What each flaw breaks."""
    return table(
        ("policy", "flaw", "what it is", "found by", "steps"),
        [(r.policy, r.flaw, r.what,
          ", ".join(r.found) or "equivalent: " + EQUIVALENT.get(r.flaw, "NOT EXPLAINED"),
          str(min(len(r.result.broken[p][0]) for p in r.found)) if r.found else "-")
         for r in results])


def bug_table(caught: Sequence[Caught]) -> Table:
    """Public bugs and the shortest way to each."""
    return table(
        ("bug", "source", "code", "property", "steps", "story"),
        [(c.bug.what, c.bug.source, c.bug.model, c.bug.property, str(len(c.words)), c.told())
         for c in caught])


def walk_table(results: Sequence[Walked]) -> Table:
    """How far each walk came."""
    return table(
        ("policy", "CPUs", "guests", "depth", "seed", "actions", "world switches", "broken",
         "seconds"),
        [(r.policy, str(r.cpus), str(r.guests), str(r.depth), str(r.seed), f"{r.actions:,}",
          f"{r.switches:,}", ", ".join(r.broken) or "nothing", f"{r.seconds:.1f}")
         for r in results])


def what_if_table(outcomes: Sequence[Outcome]) -> Table:
    """What the event leads to at each point; points in a row with one outcome share a line."""
    rows: list[list[str]] = []
    for outcome in outcomes:
        point = str(outcome.number)
        broken = ", ".join(f"{name} at {at}" for name, at in outcome.broken.items())
        result = "; ".join(filter(None, (
            broken and f"breaks {broken}", outcome.problem))) or "nothing broken"
        if rows and rows[-1][2] == result:
            rows[-1][0] = f"{rows[-1][0].split('-')[0]}-{point}"
            rows[-1][1] = f"{rows[-1][1].split(' … ')[0]} … {outcome.after}"
        else:
            rows.append([point, outcome.after or "the beginning", result])
    return table(("point", "after", "outcome"), rows)


def print_with_legend(content: Table, names: Iterable[str] = NAMES) -> None:
    """Print a table, and below it a line for each property that is named."""
    lines = legend(names)
    print_table(content)
    if lines:
        print("", *lines, sep="\n")


def legend(names: Iterable[str]) -> list[str]:
    """A line for each property that is named: what it is that breaks it."""
    named = set(names)
    return [f"{name:4} {title}" for name, title in TITLES.items() if name in named]


def json_of(result: Result, stories: bool = False) -> dict[str, Any]:
    """A search's result as plain values; `broken` has the length of the shortest way to break each
    property, and, if they are asked for, `stories` the way."""
    told = {} if not stories else {"stories": {
        name: script.json_of(result.configuration,
                             story_of(result.configuration, name, path).replay())
        for name, path in result.broken.items()}}
    return {
        "configuration": result.configuration.to_dict(), "states": result.states,
        "transitions": result.transitions, "diameter": result.diameter,
        "complete": result.complete, "seconds": round(result.seconds, 3),
        "bytes": result.memory,
        "broken": {name: len(states) for name, (states, _) in result.broken.items()}, **told}


def save_stories(results: Sequence[Result], directory: Path) -> list[Story]:
    """Write every broken property's story, replay file and timeline.

    Returns
    -------
    list of Story
    """
    stories = {
        "-".join((result.configuration.policy, *result.configuration.flaws, name)):
            story_of(result.configuration, name, path)
        for result in results for name, path in result.broken.items()}
    save_each(stories, directory)
    return list(stories.values())


def save_each(stories: dict[str, Story], directory: Path) -> None:
    """Write each story as text, replay file and timeline, under its name."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, story in stories.items():
        stem = name.replace("'", "n")
        for suffix, text in ((".txt", story.text() + "\n"), (".story.json", story.to_json()),
                             (".trace.json", timeline(story))):
            write_text(directory / (stem + suffix), text)
