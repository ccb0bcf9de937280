"""pylbr verify: every interleaving of host and guests, for every policy."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from pylbr.arbitration import POLICIES, is_file, make_policy, named
from pylbr.cli import verify_plain
from pylbr.cli.pager import add_terminal_options
from pylbr.cli.progress import progress
from pylbr.errors import CommandError
from pylbr.tables import print_table
from pylbr.verify import run as suites_run
from pylbr.verify import script, template, template_cython
from pylbr.verify.bugs import BUGS, Caught, catch_all
from pylbr.verify.models import ARCHITECTURAL_ONLY, FEATURES, KINDS, STANDARD, Configuration
from pylbr.verify.ownership import handovers, mermaid, ownership_configuration
from pylbr.verify.plain_models import MODELS
from pylbr.verify.script import Script
from pylbr.verify.story import Story, story_of
from pylbr.verify.suites import (
    CORRECT,
    EQUIVALENT,
    EXTENDED,
    SWITCHED,
    FlawResult,
    broken_claims,
    mutants,
    switches,
)
from pylbr.verify.walks import Walked, everything, walk

Task = TypeVar("Task")
Answer = TypeVar("Answer")

#: Sets of flaws and bugs -> the code that they are of.
_OF_SET = {"bugs": SWITCHED, "mutants": CORRECT,
           "public": tuple(dict.fromkeys(bug.policy for bug in BUGS))}

HELP = "search every interleaving of host and guests for leaks and losses"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("policies", nargs="*", metavar="POLICY",
                        help=f"default: all of {', '.join(POLICIES)}, or all that a set has; a "
                        "file NAME.py is a policy in plain Python, NAME.pyx one in Cython. "
                        f"Models of their own, searched when they are named: {', '.join(MODELS)}")
    parser.add_argument("--new-policy", metavar="NAME",
                        help="write NAME.py, or NAME.pyx if NAME ends so: a policy to start from, "
                        "in plain Python or in Cython, with a table of the hooks")
    parser.add_argument("--set", choices=("standard", *EXTENDED, "bugs", "mutants", "public"),
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
                        help="run a random walk of N actions instead of a search, at depth 32")
    parser.add_argument("--seed", type=int, default=1, help="of a walk (default: %(default)s)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="replay a .story.json file")
    parser.add_argument("--story", metavar="TEXT|FILE|-",
                        help="run what is written, such as 'guest wrmsr LBR_CTL; IPI opens "
                        "cpu-exclude; NMI after prepare-entry'; docs/stories.md has the words")
    parser.add_argument("--what-if", metavar="'EVENT at every point of TEXT|FILE|-'",
                        help="place one event at every micro-step of a story")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--ownership", action="store_true",
                        help="print the hand-overs of the registers as a Mermaid diagram")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1),
                        help="processes (default: %(default)s)")
    add_terminal_options(parser)


def _configurations(args: argparse.Namespace) -> list[Configuration]:
    chosen: dict[str, Any] = {"depth": 2, **STANDARD} if args.set == "standard" else {
        "depth": 1, **EXTENDED[args.set]}
    for key in ("depth", "guests", "cpus"):
        if getattr(args, key) is not None:
            chosen[key] = getattr(args, key)
    if args.features is not None:
        chosen["features"] = tuple(filter(None, args.features.split(",")))
    if args.events is not None:
        chosen["kinds"] = tuple(filter(None, args.events.split(",")))
    policies = args.policies or list(POLICIES)
    lacking = [name for name in ARCHITECTURAL_ONLY if name in chosen["features"]]
    if not args.policies and lacking:
        legacy = [policy for policy in policies if make_policy(policy).legacy]
        policies = [policy for policy in policies if policy not in legacy]
        print(f"left out, without a model of {' and '.join(lacking)}: {', '.join(legacy)}",
              file=sys.stderr)
    configurations = [Configuration(policy, tuple(args.flaw), **chosen) for policy in policies]
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
    """Run the tasks, with a bar that counts what they have done."""
    answers: list[Answer] = []
    with progress(None, unit, f"0 of {len(tasks)}") as bar:
        for answer in suites_run.in_parallel(
                run, tasks, args.jobs, lambda done: bar.update(done - bar.n), args.files):
            answers.append(answer)
            bar.set_description(f"{len(answers)} of {len(tasks)}")
    return answers


def _source(text: str) -> str:
    """A story: the text itself, or of a file, or of standard input."""
    if text == "-":
        return sys.stdin.read()
    path = Path(text)
    try:
        return path.read_text() if os.path.isfile(path) else text  # no error if it is too long
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: {error}") from None


def _scripts(args: argparse.Namespace, text: str) -> list[Script]:
    """The story for each policy that is named, or for the one that it names itself."""
    return [script.read(text, policy, args.flaw) for policy in args.policies or [None]]


def _stories(args: argparse.Namespace) -> int:
    text = _source(args.story)
    plain = verify_plain.run_story(args, text)
    if plain is not None:
        return plain
    status, told = 0, []
    for each in _scripts(args, text):
        steps = script.play(each)
        broken = script.broken_in(steps)
        status |= bool(broken_claims(each.configuration.policy, broken))
        told.append(script.json_of(each.configuration, steps))
        if not args.json:
            print(script.text_of(each.configuration, steps))
    if args.json:
        print(json.dumps(told, indent=1))
    return status


def _what_if(args: argparse.Namespace) -> int:
    found = re.fullmatch(r"\s*(.+?) at every point of (.+)", args.what_if, re.S)
    if not found:
        raise CommandError("--what-if: write 'EVENT at every point of STORY', not "
                           f"{args.what_if!r}")
    text = _source(found[2].strip())
    plain = verify_plain.run_story(args, text, found[1])
    if plain is not None:
        return plain
    status, told = 0, []
    for each in _scripts(args, text):
        outcomes = script.what_if(found[1], each)
        policy = each.configuration.policy
        status |= any(broken_claims(policy, outcome.broken) for outcome in outcomes)
        told.append({"policy": policy, "event": found[1],
                     "outcomes": [asdict(outcome) for outcome in outcomes]})
        if not args.json:
            print(f"{policy}: {found[1]} at every point\n")
            suites_run.print_with_legend(suites_run.what_if_table(outcomes), (
                name for outcome in outcomes for name in outcome.broken))
    if args.json:
        print(json.dumps(told, indent=1))
    return status


def _walk(task: dict, report: Callable[[int], None]) -> Walked:
    return walk(**task, report=report)


def _walks(args: argparse.Namespace) -> int:
    tasks = [{"policy": policy, "actions": args.walk, "flaws": tuple(args.flaw),
              "seed": args.seed, "guests": args.guests or 4, "cpus": args.cpus or 2}
             for policy in args.policies or POLICIES]
    for task in tasks:
        model = everything(task["policy"], task["flaws"])  # one clear line before hours of work
        if model.policy.legacy:
            print(f"{task['policy']}: walks without {' and '.join(ARCHITECTURAL_ONLY)}, of which "
                  "legacy LBRs have no model", file=sys.stderr)
    walked = _all(args, _walk, tasks, "action")
    if args.json:
        print(json.dumps([asdict(w) for w in walked], indent=1))
    else:
        suites_run.print_with_legend(suites_run.walk_table(walked),
                                     (name for w in walked for name in w.broken))
    return 1 if any(broken_claims(w.policy, w.broken) for w in walked) else 0


def _searches(args: argparse.Namespace) -> int:
    configurations = _configurations(args)
    results = _all(args, suites_run.search, configurations, "state")
    if args.out:  # first: what reads the tables may end before they do
        count = len(suites_run.save_stories(results, args.out))
        print(f"{count} stories in {args.out}", file=sys.stderr)
    if args.json:
        print(json.dumps([suites_run.json_of(result, args.stories) for result in results],
                         indent=1))
    else:
        print_table(suites_run.state_table(results))
        print()
        suites_run.print_with_legend(suites_run.property_table(results))
    if args.stories and not args.json:
        for result in results:
            for name, path in result.broken.items():
                print("\n" + story_of(result.configuration, name, path).text())
    return 1 if any(broken_claims(r.configuration.policy, r.broken) for r in results) else 0


def _flaws(args: argparse.Namespace, found: Sequence[FlawResult]) -> int:
    if args.json:
        print(json.dumps([{"policy": f.policy, "flaw": f.flaw, "what": f.what,
                           "found": f.found, "result": suites_run.json_of(f.result, args.stories)}
                          for f in found], indent=1))
    else:
        suites_run.print_with_legend(suites_run.flaw_table(found), (
            name for flaw in found for name in flaw.found))
    if args.stories or args.out:
        results = [flaw.result for flaw in found if flaw.found]
        for flaw in found if args.stories and not args.json else ():
            if flaw.found:
                path = flaw.result.broken[flaw.found[0]]
                print("\n" + story_of(flaw.result.configuration, flaw.found[0], path).text())
        if args.out:
            suites_run.save_stories(results, args.out)
    missed = [f for f in found if not f.found and f.flaw not in EQUIVALENT]
    return 1 if missed else 0


def _public(args: argparse.Namespace, caught: Sequence[Caught]) -> int:
    if args.json:
        print(json.dumps([{
            "bug": c.bug.what, "source": c.bug.source, "model": c.bug.model,
            "property": c.bug.property, "steps": len(c.words), "states": c.states,
            "story": c.told()} for c in caught], indent=1))
    else:
        suites_run.print_with_legend(suites_run.bug_table(caught), (
            c.bug.property for c in caught))
    stories = [c.story for c in caught if c.story]
    for story in stories if args.stories and not args.json else ():
        print("\n" + story.text())
    if args.out:
        suites_run.save_each({f"{n:02}-{story.configuration.policy}-{story.property}": story
                              for n, story in enumerate(stories, 1)}, args.out)
    verify_plain.tell_bugs(args, [c for c in caught if not c.story], len(stories) + 1)
    return 0


def _ownership(args: argparse.Namespace) -> int:
    changes = {policy: handovers(ownership_configuration(policy))
               for policy in args.policies or POLICIES}
    if args.json:
        print(json.dumps({policy: [dict(zip(("before", "after", "step", "context"), change,
                                            strict=True)) for change in found]
                          for policy, found in changes.items()}, indent=1))
        return 0
    for policy, found in changes.items():
        print(f"%% {policy}\n{mermaid(found)}\n")
    return 0


def _new_policy(wanted: str) -> int:
    """Write the template under another name, in Python or in Cython."""
    name, suffix = wanted.removesuffix(".pyx"), ".pyx" if wanted.endswith(".pyx") else ".py"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name) or name in POLICIES or name in MODELS:
        raise CommandError(f"--new-policy: {name!r} is not free or not a name: lower case letters, "
                           "digits and hyphens")
    path = Path(name.replace("-", "_") + suffix)
    text = Path(template.__file__).read_text() if suffix == ".py" else template_cython.TEXT
    kind = "".join(part.capitalize() for part in name.split("-"))
    text = text.replace(f"./template{suffix}", f"./{path}").replace(
        "Template(", f"{kind}(").replace(": Template}", f": {kind}}}").replace(
        '"template"', f'"{name}"').replace("`template`", f"`{name}`")
    try:
        with path.open("x") as file:
            file.write(text)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    print(f"wrote {path}; now: pylbr verify ./{path}")
    return 0


def _register(args: argparse.Namespace) -> None:
    """Files among the policies become the policies that they register."""
    args.files = [policy for policy in args.policies if is_file(policy)]
    args.policies = named(args.policies)


def _refuse_what_is_not_used(args: argparse.Namespace) -> None:
    """Options that would change nothing, and policies that a set has not."""
    if args.replay or args.story is not None or args.what_if is not None:
        given = "--replay" if args.replay else "--what-if" if args.story is None else "--story"
        unused = ("depth", "guests", "cpus", "features", "events", *["flaw"] * bool(args.replay))
        reason = "the story has it: write it there"
    elif args.ownership:
        given, reason = "--ownership", "it has a configuration of its own"
        unused = ("depth", "guests", "cpus", "features", "events", "flaw")
    elif args.walk:
        given, reason = "--walk", "a walk has everything, at depth 32"
        unused = ("depth", "features", "events")
    elif args.set in _OF_SET:
        given, reason = f"--set {args.set}", "each search has the smallest ground"
        unused = ("depth", "guests", "cpus", "features", "events", "flaw")
        for policy in args.policies:
            if policy not in _OF_SET[args.set]:
                raise CommandError(f"{given}: it has nothing of {policy}; it has "
                                   f"{', '.join(_OF_SET[args.set])}")
    else:
        return
    for name in unused:
        if getattr(args, name) not in (None, []):
            raise CommandError(f"--{name}: not used with {given}, {reason}")


def run(args: argparse.Namespace) -> int:
    """Run the command; 1 if a policy that must hold a property breaks it."""
    if args.jobs < 1:
        raise CommandError(f"--jobs: must be 1 or more, not {args.jobs}")
    if args.walk is not None and args.walk < 1:
        raise CommandError(f"--walk: must be 1 or more, not {args.walk}")
    if args.new_policy:
        return _new_policy(args.new_policy)
    if verify_plain.wanted(args):
        if args.story is not None:
            return _stories(args)
        return _what_if(args) if args.what_if is not None else verify_plain.run(args)
    _register(args)
    _refuse_what_is_not_used(args)
    if args.replay:
        story = Story.load(args.replay)
        print(json.dumps(script.json_of(story.configuration, story.replay()), indent=1)
              if args.json else story.text())
        return 1 if broken_claims(story.configuration.policy, [story.property]) else 0
    if args.story is not None:
        return _stories(args)
    if args.what_if is not None:
        return _what_if(args)
    if args.ownership:
        return _ownership(args)
    if args.walk:
        return _walks(args)
    if args.set == "public":
        with progress(None, "bug", args.set) as bar:
            return _public(args, list(catch_all(lambda _: bar.update(1), args.policies)))
    if args.set in ("bugs", "mutants"):
        with progress(None, "flaw", args.set) as bar:
            suite = switches if args.set == "bugs" else mutants
            return _flaws(args, list(suite(lambda _: bar.update(1), args.policies)))
    return _searches(args)
