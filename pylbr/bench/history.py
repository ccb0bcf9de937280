"""Runs kept over time, in the form that asv (airspeed velocity) publishes.

::

    DIRECTORY/benchmarks.json              what is measured
    DIRECTORY/MACHINE/machine.json
    DIRECTORY/MACHINE/COMMIT-pylbr.json    one run: median, quartiles and all values per row

``asv publish`` makes pages of such a directory where ``results_dir`` names it.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pylbr.bench.contest import RowResult
from pylbr.bench.suite import Result
from pylbr.errors import CommandError
from pylbr.files.json_text import decode_json
from pylbr.files.output import AtomicFile

__all__ = ["add_run", "commit_of"]

_VERSION: Final = 2  # of the files, by asv
_COLUMNS: Final = ("result", "params", "version", "started_at", "duration", "stats_ci_99_a",
                   "stats_ci_99_b", "stats_q_25", "stats_q_75", "stats_number", "stats_repeat",
                   "samples", "profile")
_ENVIRONMENT: Final = "pylbr"


def add_run(directory: Path, result: Result, commit: str) -> Path:
    """Keep a run, in place of one of the same commit on this machine.

    Parameters
    ----------
    commit : str
        Which state of pylbr was measured: 40 hexadecimal digits of git, or another name.

    Raises
    ------
    CommandError
        The directory holds something else.
    """
    name = re.sub(r"[^\w.-]", "-", platform.node()) or "machine"
    machine = directory / name
    known = _known(directory / "benchmarks.json")
    began = int(datetime.fromisoformat(result.began).timestamp() * 1000)
    rows = [row for row in result.rows if row.contenders[0].values]
    for row in rows:
        known[_name(row)] = _description(row)
    machine.mkdir(parents=True, exist_ok=True)
    _write(directory / "benchmarks.json", known | {"version": _VERSION})
    _write(machine / "machine.json", {
        "machine": name, "cpu": result.machine.processor, "num_cpu": str(result.machine.processors),
        "ram": f"{result.machine.memory:.0f} GB", "os": result.machine.system,
        "arch": platform.machine(), "version": 1})
    path = machine / f"{commit[:8]}-{_ENVIRONMENT}.json"
    _write(path, {
        "commit_hash": commit, "date": began, "env_name": _ENVIRONMENT, "env_vars": {},
        "params": {"machine": name, "python": platform.python_version()}, "python":
        platform.python_version(), "requirements": {}, "result_columns": _COLUMNS,
        "results": {_name(row): _measured(row, began) for row in rows},
        "durations": {_name(row): row.seconds for row in rows}, "version": _VERSION})
    return path


def _known(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = decode_json(path.read_text())
        version = found.pop("version")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(f"{path}: is no list of benchmarks of asv ({error})") from error
    if version != _VERSION:
        raise CommandError(f"{path}: is of version {version}, and this writes {_VERSION}")
    return found  # type: ignore[no-any-return]


def _name(row: RowResult) -> str:
    kind = "track" if row.kind == "size" else "time"
    what = re.sub(r"\W", "_", row.row.name.partition(".")[2])
    return f"{row.row.area}.{kind}_{what}"


def _description(row: RowResult) -> dict[str, Any]:
    size = row.kind == "size"
    name = _name(row)
    return {
        "name": name, "pretty_name": row.row.title, "code": row.row.title, "param_names": [],
        "params": [], "timeout": 600, "type": "track" if size else "time",
        "unit": row.unit if size else "seconds", "version": "1",
        **({} if size else {"min_run_count": 2, "number": 1, "repeat": 0, "rounds": 1,
                            "sample_time": 0.02, "warmup_time": 0})}


def _measured(row: RowResult, began: int) -> list[Any]:
    """In the order of `_COLUMNS`: seconds per item, which asv wants lower, or the size."""
    ours = row.contenders[0]
    values = sorted(ours.values if row.kind == "size" else (1 / value for value in ours.values))
    middle = values[len(values) // 2] if len(values) % 2 else (
        values[len(values) // 2 - 1] + values[len(values) // 2]) / 2
    if row.kind == "size":
        return [[middle], [], "1", began, row.seconds]
    quartiles = [values[len(values) // 4], values[(3 * len(values)) // 4]]
    return [[middle], [], "1", began, row.seconds, [values[0]], [values[-1]], [quartiles[0]],
            [quartiles[1]], [1], [len(values)], [values]]


def _write(path: Path, content: Any) -> None:
    with AtomicFile(path) as output:
        output.file.write(json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")


def commit_of(directory: Path, version: str) -> str:
    """The commit that a checkout is at; of an installed pylbr its version and the day."""
    head = directory / ".git"
    if head.exists():
        done = subprocess.run(["git", "-C", str(directory), "rev-parse", "HEAD"],
                              capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return f"{version}.{time.strftime('%Y%m%d')}"
