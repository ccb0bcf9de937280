"""The second model beside `pylbr.verify`: how it is built, run and compared.

    python tests/verify/second/compare.py [--depth-2]

prints the table of docs/arbitration.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pylbr.arbitration import POLICIES, make_policy
from pylbr.verify.models import FEATURES, KINDS, Configuration, Result, explore, property_bits
from pylbr.verify.run import table
from pylbr.verify.suites import EXTENDED, by_design

HERE = Path(__file__).resolve().parent

#: The features that the second model is asked for; `stack` comes with the kind `task-stack`.
KNOWS = FEATURES.keys() - {"stack"}


@dataclass(frozen=True)
class Count:
    """What a search came to; `broken` is property -> steps of the shortest way."""

    states: int
    transitions: int
    diameter: int
    broken: dict[str, int]


def build(directory: Path, compiler: str = "g++") -> Path:
    """Compile the second model; any warning is an error."""
    program = directory / "second"
    subprocess.run(
        [compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program,
         HERE / "second.cpp"],
        check=True, timeout=120,
    )
    return program


def _explore(configuration: Configuration, ignore: Iterable[str]) -> Result:
    return explore(configuration, ignore=ignore)


def ignored(configuration: Configuration) -> tuple[str, ...]:
    """Properties after whose violation the search continues."""
    return by_design(configuration.policy)


def second(program: Path, configuration: Configuration, ignore: Iterable[str]) -> Count:
    """Search with the second model."""
    c = configuration
    flaws = getattr(make_policy(c.policy), "flaws", frozenset()) | set(c.flaws)
    done = subprocess.run(
        [program, f"policy={c.policy}", f"flaws={','.join(sorted(flaws))}", f"depth={c.depth}",
         f"guests={c.guests}", f"cpus={c.cpus}", f"events={c.events}",
         f"features={','.join(c.features)}",
         f"kinds={','.join(str(KINDS[name]) for name in c.kinds)}",
         f"ignore={property_bits(ignore)}"],
        check=True, capture_output=True, text=True, timeout=300,
    )
    return Count(**json.loads(done.stdout))


def first(
    configuration: Configuration, ignore: Iterable[str],
    explore: Callable[[Configuration, Iterable[str]], Result] = _explore,
) -> Count:
    """Search with `pylbr.verify`."""
    result = explore(configuration, ignore)
    assert result.complete
    return Count(result.states, result.transitions, result.diameter,
                 {name: len(states) for name, (states, _) in result.broken.items()})


def _rows(depth_2: bool) -> Iterable[tuple[str, Configuration]]:
    for policy in POLICIES:
        yield "standard", Configuration(policy, depth=1, guests=1)
        yield "standard", Configuration(policy, depth=1, guests=2)
        if depth_2:
            yield "standard", Configuration(policy, depth=2, guests=2)
    for name, more in EXTENDED.items():
        if name not in ("tasks", "all"):
            yield name, Configuration("request", depth=1, **{**more, "guests": 1})
            yield name, Configuration("lease", depth=1, **{**more, "guests": 1})
    yield "tasks", Configuration("mediated", depth=1, **EXTENDED["tasks"])


def main(depth_2: bool) -> int:
    """Print the table; 1 if anything differs."""
    differs = False
    lines = []
    with tempfile.TemporaryDirectory() as directory:
        program = build(Path(directory))
        for name, configuration in _rows(depth_2):
            ignore = ignored(configuration)
            one, two = first(configuration, ignore), second(program, configuration, ignore)
            differs |= one != two
            lines.append((
                configuration.policy, name, str(configuration.guests), str(configuration.depth),
                f"{one.states:,}", f"{two.states:,}", f"{one.transitions:,}",
                f"{two.transitions:,}", f"{one.diameter} / {two.diameter}",
                "same" if one.broken == two.broken else "DIFFER"))
    print(table(("policy", "set", "guests", "depth", "states", "second", "transitions", "second",
                 "diameters", "verdicts"), lines))
    return int(differs)


if __name__ == "__main__":
    sys.exit(main("--depth-2" in sys.argv[1:]))
