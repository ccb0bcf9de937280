"""Two revisions of pylbr, turn by turn, and whether they differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from pylbr.bench.contest import Row
from pylbr.bench.report import quantity
from pylbr.bench.statistics import Spread, holm, permutation_p, ratios
from pylbr.errors import CommandError
from pylbr.tables import Table

__all__ = ["Difference", "compare", "difference_table", "tree_of"]

_WORKER: Final = Path(__file__).resolve().parent / "worker.py"
#: Processes of each revision: the least with which the exact test can find a chance of 1 in 460.
_TURNS: Final = {True: 6, False: 12}
_CHANCE: Final = 0.05
_BUILD: Final = ("setup.py", "-q", "build_ext", "--inplace")


@dataclass(frozen=True, slots=True)
class Difference:
    """A row, in two revisions.

    Attributes
    ----------
    row : Row
    unit, kind : str
    before, after : tuple of float
        The median of each process.
    ratio : Spread or None
        After over before, of the same turns.
    chance : float
        Of so large a difference where there is none, beside all other rows (Holm).
    why : str
        Where nothing was measured.
    """

    row: Row
    unit: str = ""
    kind: str = "rate"
    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()
    ratio: Spread | None = None
    chance: float = 1.0
    why: str = ""

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or that no difference shows."""
        if self.ratio is None:
            return f"not measured: {self.why}"
        if self.chance >= _CHANCE:
            return "no difference shown"
        better = (self.ratio.median > 1) == (self.kind == "rate")
        return "better" if better else "worse"


@contextmanager
def tree_of(revision: str, checkout: Path) -> Iterator[Path]:
    """A built tree of a revision of git; a directory that holds one is taken as it is.

    Raises
    ------
    CommandError
        It is neither, or cannot be built.
    """
    if Path(revision, "pylbr", "__init__.py").is_file():
        yield Path(revision).resolve()
        return
    if not (checkout / ".git").exists():
        raise CommandError(f"--compare {revision}: is no directory with a pylbr, and this pylbr is "
                           "no checkout of git that has revisions")
    with tempfile.TemporaryDirectory(prefix="pylbr-bench-") as place:
        tree = Path(place, "tree")
        _git(checkout, revision, "worktree", "add", "--detach", str(tree), revision)
        try:
            done = subprocess.run([sys.executable, *_BUILD], cwd=tree, capture_output=True,
                                  text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise CommandError(f"--compare {revision}: cannot be built: {last}")
            yield tree
        finally:
            _git(checkout, revision, "worktree", "remove", "--force", str(tree))


def _git(checkout: Path, revision: str, *words: str) -> None:
    done = subprocess.run(["git", "-C", str(checkout), *words], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CommandError(f"--compare {revision}: {last}")


def compare(
    rows: Sequence[Row], before: Path, after: Path, quick: bool,
    update: Callable[[Difference], object] = lambda row: None,
    values_of: Callable[[Path, str, bool], dict[str, Any]] | None = None,
) -> list[Difference]:
    """Measure rows with two trees, by processes that take turns.

    What differs between two processes of one revision, such as where memory lies, is in the spread
    of the processes, and each counts once.

    Parameters
    ----------
    before, after : Path
        Trees with a built pylbr.
    update : callable, optional
        Called with each row, before its chance is corrected for the number of rows.
    values_of : callable, optional
        Measures a row once; a process of its own by default.
    """
    found = []
    for row in rows:
        found.append(_row(row, before, after, quick, values_of or _in_a_process))
        update(found[-1])
    measured = [one for one in found if not one.why]
    chances = holm([one.chance for one in measured])
    beside = dict(zip((one.row.name for one in measured), chances, strict=True))
    return [one if one.why else replace(one, chance=beside[one.row.name]) for one in found]


def _in_a_process(tree: Path, name: str, quick: bool) -> dict[str, Any]:
    """What `worker` prints of a row with the pylbr of a tree."""
    done = subprocess.run(
        [sys.executable, str(_WORKER), str(tree), name, "quick" if quick else "full"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"why": last}
    return found


def _row(row: Row, before: Path, after: Path, quick: bool,
         values_of: Callable[[Path, str, bool], dict[str, Any]]) -> Difference:
    medians: tuple[list[float], list[float]] = ([], [])
    unit = kind = ""
    for turn in range(_TURNS[quick]):
        # Each is first in every other turn.
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            values = values_of((before, after)[which], row.name, quick)
            if "why" in values:
                return Difference(row, why=f"{values['why']} "
                                  f"({'the revision' if which == 0 else 'this pylbr'})")
            medians[which].append(median(values["values"]))
            unit, kind = values["unit"], values["kind"]
    one, two = medians
    return Difference(row, unit, kind, tuple(one), tuple(two), ratios(two, one),
                      permutation_p(one, two))


def difference_table(differences: Sequence[Difference], before: str, after: str) -> Table:
    """One line per row."""
    lines = []
    for one in differences:
        if one.ratio is None:
            lines.append([one.row.name, "", "", "", "", one.verdict])
            continue
        lines.append([
            one.row.name, quantity(median(one.before), one.unit, one.kind),
            quantity(median(one.after), one.unit, one.kind),
            f"{one.ratio.median:.3f} ({one.ratio.low:.3f} to {one.ratio.high:.3f})",
            f"{one.chance:.3f}", one.verdict])
    return Table(lines, ("row", before, after, "ratio", "p (Holm)", ""), markdown=True)
