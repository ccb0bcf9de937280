"""pylbr verify of the models in plain Python: TDX, and LBRs of AMD."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pylbr.cli.progress import progress
from pylbr.errors import CommandError
from pylbr.files.output import write_text
from pylbr.tables import print_table
from pylbr.verify import plain_models, script
from pylbr.verify import run as suites_run
from pylbr.verify.bugs import Caught
from pylbr.verify.models import Configuration, Result
from pylbr.verify.plain_models import MODELS
from pylbr.verify.suites import FlawResult
from pylbr.verify.timeline import timeline_of

__all__ = ["run", "run_story", "tell_bugs", "wanted"]

#: Options that mean nothing to a model that is searched whole.
_UNUSED = ("depth", "guests", "cpus", "events", "walk", "replay")


def wanted(args: argparse.Namespace) -> bool:
    """Do the arguments name models of this kind, and do they alone?

    Raises
    ------
    CommandError
        They name policies beside them, or options that these models do not have.
    """
    if not any(name in MODELS for name in args.policies):
        return False
    if args.set == "public":  # the list of bugs, some of which these models have
        return False
    name = next(name for name in args.policies if name in MODELS)
    for other in args.policies:
        if other not in MODELS:
            raise CommandError(f"{name} is a model of its own, {other} is none: one command each")
    for option in _UNUSED:
        if getattr(args, option) is not None:
            raise CommandError(f"--{option}: not used with {name}, a model that is searched whole")
    if args.ownership or args.set not in ("standard", "mutants"):
        given = "--ownership" if args.ownership else f"--set {args.set}"
        raise CommandError(f"{given}: not used with {name}; it has --set mutants")
    if args.set == "mutants" and not all(MODELS[name].holds for name in args.policies):
        can = ", ".join(name for name in MODELS if MODELS[name].holds)
        raise CommandError(f"--set mutants: is for models that hold everything: {can}")
    return True


def _features(args: argparse.Namespace) -> list[str]:
    return [name for name in (args.features or "").split(",") if name]


def _told(result: Result, stories: bool) -> dict:
    """As `pylbr.verify.run.json_of`."""
    told = suites_run.json_of(result)
    if stories:
        told["stories"] = {name: script.json_of(
            result.configuration, plain_models.steps_of(result.configuration, words))
            for name, (words, _) in result.broken.items()}
    return told


def _save(path: Path, configuration: Configuration, name: str, words: Sequence[str]) -> None:
    """A story as text and as a timeline; the path has no suffix."""
    write_text(path.with_name(path.name + ".txt"), _text(configuration, name, words) + "\n")
    write_text(path.with_name(path.name + ".trace.json"),
               timeline_of(plain_models.steps_of(configuration, words)))


def _text(configuration: Configuration, name: str, words: Sequence[str]) -> str:
    steps = plain_models.steps_of(configuration, words)
    return (f"# {name}: {MODELS[configuration.policy].titles[name]}\n"
            f"{plain_models.text_of(configuration, steps)}")


def _write(results: Sequence[Result], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    count = 0
    for result in results:
        c = result.configuration
        for name, (words, _) in result.broken.items():
            _save(directory / "-".join((c.policy, *c.flaws, name)), c, name, words)
            count += 1
    print(f"{count} stories in {directory}", file=sys.stderr)


def _print_legend(policies: Sequence[str]) -> None:
    """A line for each property, of each model where they differ."""
    told: dict[str, list[str]] = {}
    for policy in dict.fromkeys(policies):
        lines = [f"{name:7} {title}" for name, title in MODELS[policy].titles.items()]
        told.setdefault("\n".join(lines), []).append(policy)
    for legend, names in told.items():
        print("", *([", ".join(names)] if len(told) > 1 else []), legend, sep="\n")


def _searches(args: argparse.Namespace) -> int:
    configurations = [plain_models.configuration_of(name, args.flaw, _features(args))
                      for name in args.policies]
    results = []
    with progress(None, "model", "search") as bar:
        for configuration in configurations:
            results.append(plain_models.search(configuration))
            bar.update(1)
    if args.out:
        _write(results, args.out)
    if args.json:
        print(json.dumps([_told(result, args.stories) for result in results], indent=1))
    else:
        names = dict.fromkeys(name for c in configurations for name in MODELS[c.policy].titles)
        print_table(suites_run.state_table(results))
        print()
        print_table(suites_run.property_table(results, {
            name: [c.policy for c in configurations if name in MODELS[c.policy].titles]
            for name in names}))
        _print_legend(args.policies)
        for result in results if args.stories else ():
            for name, (words, _) in result.broken.items():
                print("\n" + _text(result.configuration, name, words))
    return 1 if any(plain_models.broken_claims(r.configuration.policy, r.broken)
                    for r in results) else 0


def _mutants(args: argparse.Namespace) -> int:
    if args.flaw or args.features:
        raise CommandError("--set mutants: takes neither --flaw nor --features here")
    found: list[FlawResult] = []
    with progress(None, "flaw", args.set) as bar:
        for name in args.policies:
            found += plain_models.mutants(name, lambda _: bar.update(1))
    if args.out:
        _write([flaw.result for flaw in found], args.out)
    if args.json:
        print(json.dumps([{"policy": f.policy, "flaw": f.flaw, "what": f.what,
                           "found": f.found, "result": _told(f.result, args.stories)}
                          for f in found], indent=1))
    else:
        print_table(suites_run.flaw_table(found))
        _print_legend(args.policies)
        for flaw in found if args.stories else ():
            for name in flaw.found:
                print("\n" + _text(flaw.result.configuration, name, flaw.result.broken[name][0]))
    return 1 if any(not flaw.found for flaw in found) else 0


def run(args: argparse.Namespace) -> int:
    """Search; 1 if a model breaks a property that it claims."""
    return _mutants(args) if args.set == "mutants" else _searches(args)


def tell_bugs(args: argparse.Namespace, caught: Sequence[Caught], first: int) -> None:
    """The stories of these models' public bugs: `--stories` prints them, `--out` writes each,
    under numbers from `first` on."""
    for number, one in enumerate(caught, first):
        bug = one.bug
        features = [name for name, given in bug.ground.items() if given]
        configuration = plain_models.configuration_of(
            bug.policy, bug.flaws, [name.replace("_", "-") for name in features])
        if args.stories and not args.json:
            print("\n" + _text(configuration, bug.property, one.words))
        if args.out:
            _save(args.out / f"{number:02}-{bug.policy}-{bug.property}", configuration,
                  bug.property, one.words)


def run_story(args: argparse.Namespace, text: str, event: str | None = None) -> int | None:
    """Run a story, with an event at every point of it if there is one; None if the story is of no
    model of this kind."""
    read = [plain_models.read(text, name, args.flaw, _features(args))
            for name in args.policies or [None]]
    if None in read:
        return None
    status, told = 0, []
    for configuration, items in filter(None, read):
        name = configuration.policy
        if event is not None:
            outcomes = plain_models.what_if(event, configuration, items)
            broken = {each for outcome in outcomes for each in outcome.broken}
            told.append({"policy": name, "event": event,
                         "outcomes": [asdict(outcome) for outcome in outcomes]})
            if not args.json:
                print(f"{name}: {event} at every point\n")
                print_table(suites_run.what_if_table(outcomes))
                _print_legend([name])
        else:
            steps = plain_models.steps_of(configuration, items)
            broken = set(script.broken_in(steps))
            told.append(script.json_of(configuration, steps))
            if not args.json:
                print(plain_models.text_of(configuration, steps))
        status |= bool(plain_models.broken_claims(name, broken))
    if args.json:
        print(json.dumps(told, indent=1))
    return status
