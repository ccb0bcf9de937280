"""The page that ``pylbr report --html`` writes."""

from __future__ import annotations

import argparse
import os
import sys

from pylbr.cli.progress import print_notes, progress
from pylbr.errors import CommandError
from pylbr.files.output import AtomicFile
from pylbr.html.content import empty_content, profile_content
from pylbr.html.flame import FlameTree
from pylbr.html.page import page
from pylbr.html.recorded import count_with_stacks
from pylbr.html.timelines import read_timeline
from pylbr.printable import printable
from pylbr.profile.added import Sum
from pylbr.profile.file_profile import FileProfile
from pylbr.profile.history import Paths
from pylbr.profile.remote import fetched
from pylbr.trace import open_any

__all__ = ["write_page"]


def write_page(args: argparse.Namespace, named: list[tuple[str, int]],
               before: FileProfile | None) -> None:
    """Count the inputs, if there are any, and write their page.

    Raises
    ------
    CommandError
        Another option of the report was given that the page has no use for.
    """
    if args.csv or args.json or args.by is not None or args.function is not None:
        raise CommandError("--html: the page has every view; leave --by, --function, --csv and "
                           "--json out")
    timelines = [read_timeline(path, number) for number, path in enumerate(args.timeline)]
    flame: dict[str, FlameTree] = {}
    if named:
        profile = _counted(args, named, flame)
        tree = max(flame.values(), key=lambda tree: tree.total, default=None)
        with progress(None, "functions", "reading code") as bar:
            content = profile_content(profile, tree, before, bar.update)
        problems = profile.symbols.problems
    else:
        content, problems = empty_content(printable(os.path.basename(args.timeline[0]))), []
    content["timelines"] = timelines
    with AtomicFile(args.html) as output:
        output.file.write(page(content).encode())
    for problem in problems:
        print(f"pylbr report: {printable(problem)}", file=sys.stderr)


def _counted(args: argparse.Namespace, named: list[tuple[str, int]],
             flame: dict[str, FlameTree]) -> FileProfile:
    total = Sum(Paths(args.length))
    for name, weight in named:
        with fetched([name]) as (path,), open_any(path) as source, \
                progress(getattr(source, "count", None), "", os.path.basename(name)) as bar:
            profile = count_with_stacks(source, args.length, name, flame, weight, bar.update)
            print_notes("report", source)
        if named == [(name, 1)]:
            return profile
        total.add(profile, weight, profile.paths)
    return total.profile(f"{len(named)} inputs")
