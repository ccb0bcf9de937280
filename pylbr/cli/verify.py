"""pylbr verify: every interleaving of host and guests, for every policy."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pylbr.arbitration import POLICIES
from pylbr.cli.progress import progress
from pylbr.errors import CommandError
from pylbr.verify import run as suites_run
from pylbr.verify.models import FEATURES, KINDS, STANDARD, Configuration
from pylbr.verify.ownership import handovers, mermaid, ownership_configuration
from pylbr.verify.story import Story, story_of
from pylbr.verify.suites import (
    EQUIVALENT,
    EXTENDED,
    FlawResult,
    broken_claims,
    mutants,
    switches,
)
from pylbr.verify.walks import Walked, everything, walk

Task = TypeVar("Task")
Answer = TypeVar("Answer")

HELP = "search every interleaving of host and guests for leaks and losses"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("policies", nargs="*", metavar="POLICY",
                        help=f"default: all of {', '.join(POLICIES)}")
    parser.add_argument("--set", choices=("standard", *EXTENDED, "bugs", "mutants"),
                        default="standard", help="what to search (default: %(default)s)")
    parser.add_argument("--depth", type=int, choices=(1, 2, 3),
                        help="entries of the LBR stack (legacy LBRs: 1 or 2)")
    parser.add_argument("--guests", type=int, choices=(1, 2, 3, 4))
    parser.add_argument("--cpus", type=int, choices=(1, 2))
    parser.add_argument("--flaw", action="append", default=[], metavar="NAME",
                        help="leave a guard out; `--set mutants` lists them")
    parser.add_argument("--features", metavar="NAME,...", help=", ".join(FEATURES))
    parser.add_argument("--events", metavar="NAME,...",
                        help="events that perf may open: " + ", ".join(KINDS))
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="write each violation's story, replay file and timeline there")
    parser.add_argument("--stories", action="store_true", help="print them")
    parser.add_argument("--walk", type=int, metavar="N",
                        help="instead of a search take N random actions, of all kinds, at depth 32")
    parser.add_argument("--seed", type=int, default=1, help="of a walk (default: %(default)s)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="replay a .story.json file")
    parser.add_argument("--ownership", action="store_true",
                        help="print who hands the registers to whom, as a Mermaid diagram")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1),
                        help="processes (default: %(default)s)")


def _configurations(args: argparse.Namespace) -> list[Configuration]:
    chosen = {"depth": 2, **STANDARD} if args.set == "standard" else {
        "depth": 1, **EXTENDED[args.set]}
    for key in ("depth", "guests", "cpus"):
        if getattr(args, key) is not None:
            chosen[key] = getattr(args, key)
    if args.features is not None:
        chosen["features"] = tuple(filter(None, args.features.split(",")))
    if args.events is not None:
        chosen["kinds"] = tuple(filter(None, args.events.split(",")))
    configurations = [Configuration(policy, tuple(args.flaw), **chosen)
                      for policy in args.policies or POLICIES]
    if not args.policies:
        configurations = [replace(c, depth=min(c.depth, 2)) if "legacy" in c.policy else c
                          for c in configurations]
    for configuration in configurations:
        configuration.model()  # one clear line before hours of work
    return configurations


def _all(
    args: argparse.Namespace, run: Callable[[Task, Callable[[int], None]], Answer],
    tasks: Sequence[Task], unit: str,
) -> list[Answer]:
    """Run the tasks behind a bar that counts what they have done."""
    answers: list[Answer] = []
    with progress(None, unit, f"0 of {len(tasks)}") as bar:
        for answer in suites_run.in_parallel(run, tasks, args.jobs,
                                             lambda done: bar.update(done - bar.n)):
            answers.append(answer)
            bar.set_description(f"{len(answers)} of {len(tasks)}")
    return answers


def _walk(task: dict, report: Callable[[int], None]) -> Walked:
    return walk(**task, report=report)


def _walks(args: argparse.Namespace) -> int:
    tasks = [{"policy": policy, "actions": args.walk, "flaws": tuple(args.flaw),
              "seed": args.seed, "guests": args.guests or 4, "cpus": args.cpus or 2}
             for policy in args.policies or POLICIES]
    for task in tasks:
        everything(task["policy"], task["flaws"])  # one clear line before hours of work
    walked = _all(args, _walk, tasks, "action")
    print(suites_run.walk_table(walked))
    return 1 if any(broken_claims(w.policy, w.broken) for w in walked) else 0


def _searches(args: argparse.Namespace) -> int:
    configurations = _configurations(args)
    results = _all(args, suites_run.search, configurations, "state")
    print(suites_run.state_table(results))
    print()
    print(suites_run.property_table(results))
    if args.stories:
        for result in results:
            for name, path in result.broken.items():
                print("\n" + story_of(result.configuration, name, path).text())
    if args.out:
        count = len(suites_run.save_stories(results, args.out))
        print(f"\n{count} stories in {args.out}", file=sys.stderr)
    return 1 if any(broken_claims(r.configuration.policy, r.broken) for r in results) else 0


def _flaws(args: argparse.Namespace, found: Sequence[FlawResult]) -> int:
    print(suites_run.flaw_table(found))
    if args.stories or args.out:
        results = [flaw.result for flaw in found if flaw.found]
        for flaw in found if args.stories else ():
            if flaw.found:
                path = flaw.result.broken[flaw.found[0]]
                print("\n" + story_of(flaw.result.configuration, flaw.found[0], path).text())
        if args.out:
            suites_run.save_stories(results, args.out)
    missed = [f for f in found if not f.found and f.flaw not in EQUIVALENT]
    return 1 if missed else 0


def run(args: argparse.Namespace) -> int:
    """Run the command; 1 if a policy that must hold a property breaks it."""
    if args.jobs < 1:
        raise CommandError(f"--jobs: must be 1 or more, not {args.jobs}")
    if args.walk is not None and args.walk < 1:
        raise CommandError(f"--walk: must be 1 or more, not {args.walk}")
    if args.replay:
        print(Story.load(args.replay).text())
        return 0
    if args.ownership:
        for policy in args.policies or POLICIES:
            print(f"%% {policy}\n{mermaid(handovers(ownership_configuration(policy)))}\n")
        return 0
    if args.walk:
        return _walks(args)
    if args.set in ("bugs", "mutants"):
        with progress(None, "flaw", args.set) as bar:
            suite = switches if args.set == "bugs" else mutants
            return _flaws(args, list(suite(lambda _: bar.update(1))))
    return _searches(args)
