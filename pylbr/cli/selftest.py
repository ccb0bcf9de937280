"""``pylbr selftest``: what a review of virtual LBRs asks for, on any model and policy."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from pylbr.arbitration import as_called, make_policy, named
from pylbr.arch.models import DEFAULT_MODEL
from pylbr.cli.cpu_option import add_cpu
from pylbr.cli.pager import add_terminal_options
from pylbr.cli.progress import progress
from pylbr.embed.machine import executable_model
from pylbr.errors import CommandError
from pylbr.selftest.counterexample import reproduce, reproduce_all
from pylbr.selftest.groups import groups
from pylbr.selftest.ktap import report, results
from pylbr.tables import Table
from pylbr.verify.properties import TITLES
from pylbr.verify.run import print_with_legend
from pylbr.verify.story import Story

HELP = "run selftests of guests, saved states, MSRs and contention; print KTAP"

EPILOG = """
Four groups, one for each thing that the review of virtual LBRs asked for: that they work, that
they survive save and restore, that MSRs can and cannot be accessed as CPUID enumerates, and that
host and guest contend without a leak. The guests are built with gcc and run on the machine of
`pylbr run`; the contention places events of the host at every micro-step of a guest's run, and
searches every interleaving. A failure that the policy documents is marked XFAIL.

Without gcc the guests are skipped.

examples:
  pylbr selftest
  pylbr selftest --policy request --cpu alder-lake-p
  pylbr selftest --policy kvm-legacy --group contention
  pylbr selftest --policy ./mine.py                            a policy of one's own
  pylbr verify --set public --out bugs
  pylbr selftest --counterexample bugs/30-mediated-arch-lbr-P1.story.json
  pylbr selftest --counterexample bugs                         a table of all in that directory
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("-p", "--policy", default="lease",
                        help="one of pylbr arbitrate's, or a file NAME.py or NAME.pyx that has one "
                        "(default: %(default)s)")
    add_cpu(parser, f"processor (default: {DEFAULT_MODEL}, or skylake for a policy of legacy LBRs)")
    parser.add_argument("--group", action="append", help="only this group; may be repeated",
                        choices=("works", "state", "msrs", "contention"))
    parser.add_argument("--counterexample", type=Path, metavar="FILE|DIR",
                        help="write a .story.json of pylbr verify --out as a guest program and a "
                        "contention script, run them and compare; of a directory print a table of "
                        "all")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR",
                        help="where these two are written (default: here)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of KTAP")
    parser.add_argument("--points", type=int, default=8, metavar="N",
                        help="save each guest at N points of its run (default: %(default)s)")
    add_terminal_options(parser)


def _counterexamples(args: argparse.Namespace) -> int:
    """All of a directory, with programs and scripts in --out, or nowhere."""
    paths = sorted(args.counterexample.glob("*.story.json"))
    if not paths:
        raise CommandError(f"{args.counterexample}: no .story.json is in it")
    with tempfile.TemporaryDirectory(prefix="pylbr-selftest-") as scratch, \
            progress(len(paths), "stories", str(args.counterexample)) as bar:
        found = []
        for path, (story, outcome) in zip(paths, reproduce_all(
                paths, args.out if args.out != Path(".") else Path(scratch)), strict=True):
            found.append((path.name.removesuffix(".story.json"), story, outcome))
            bar.update(1)
    shown = sum(outcome == "shows" for _, _, outcome in found)
    if args.json:
        print(json.dumps([{
            "story": name, "policy": story.configuration.policy,
            "flaws": story.configuration.flaws, "property": story.property,
            "shown": outcome == "shows", "outcome": outcome} for name, story, outcome in found],
            indent=1))
    else:
        print_with_legend(Table(
            [(name, " +".join((story.configuration.policy, *story.configuration.flaws)),
              story.property, outcome) for name, story, outcome in found],
            ("story", "code", "property", "on the machine"), markdown=True), (
                story.property for _, story, _ in found))
        print(f"\n{shown} of {len(found)} show")
    return int(shown < len(found))


def _counterexample(args: argparse.Namespace) -> int:
    story = Story.load(args.counterexample)
    stem = args.counterexample.name.removesuffix(".story.json")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        found = reproduce(story, args.out, stem)
    except OSError as error:
        raise CommandError(f"{args.out}: {error.strerror}") from None
    if args.json:
        print(json.dumps({
            "policy": story.configuration.policy, "property": story.property,
            "shown": found.shown, "lines": found.lines,
            "program": f"{args.out / stem}.elf", "script": f"{args.out / stem}.script"}, indent=1))
        return int(not found.shown)
    print(*found.lines, sep="\n")
    policy = story.configuration.policy
    own = "" if as_called(policy) == policy else f"--policy {as_called(policy)} "
    print(f"{story.property} of {policy}, {TITLES[story.property]}, "
          f"{'shows' if found.shown else 'does not show'} on the machine; again with: pylbr run "
          f"{own}--contention {args.out / stem}.script {args.out / stem}.elf")
    return int(not found.shown)


def _policy(wanted: str) -> str:
    """The policy's name; that of a file is registered."""
    names = named([wanted])
    if len(names) > 1:
        raise CommandError(f"--policy {wanted}: it has {', '.join(names)}; one file, one policy")
    return names[0]


def run(args: argparse.Namespace) -> int:
    """Run the command; 1 if something that the policy promises does not hold."""
    args.policy = _policy(args.policy)
    if args.counterexample:
        whole = args.counterexample.is_dir()
        return _counterexamples(args) if whole else _counterexample(args)
    if args.points < 1:
        raise CommandError(f"--points: must be 1 or more, not {args.points}")
    legacy = make_policy(args.policy).legacy
    model = args.model or ("skylake" if legacy else DEFAULT_MODEL)
    if (executable_model(model).arch is None) != legacy:
        kind = "legacy" if legacy else "architectural"
        raise CommandError(f"--policy {args.policy} is for {kind} LBRs, which {model} does not "
                           "have")
    with tempfile.TemporaryDirectory(prefix="pylbr-selftest-") as directory:
        chosen = groups(Path(directory), model, args.policy, args.points, args.group)
        if args.json:
            found = {"policy": args.policy, "model": model, **results(chosen)}
            print(json.dumps(found, indent=1))
            return int(found["failures"] > 0)
        return int(report(chosen, print) > 0)
