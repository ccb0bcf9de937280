"""The action for CI and the container file: their steps run, their files exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from pylbr.errors import LbrError
from pylbr.optimize.bolt import find_bolt
from pylbr.record.native.engine import usable

ROOT = Path(__file__).resolve().parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = ACTION["runs"]["steps"]


def test_an_action_has_what_runners_want():
    assert ACTION["runs"]["using"] == "composite" and ACTION["name"] and ACTION["description"]
    for step in STEPS:
        assert ("run" in step) == (step.get("shell") == "bash") != ("uses" in step), step["name"]
        # An input that is pasted into a script would run as code.
        assert "${{" not in step.get("run", "")
    named = set(re.findall(r"inputs\.(\w+)", (ROOT / "action.yml").read_text()))
    assert named == set(ACTION["inputs"])
    for name, one in ACTION["inputs"].items():
        assert one["description"] and (one.get("required") or "default" in one), name


def wheel_of(installed, folder):
    """The installed package as the wheel that it came from."""
    (info,) = installed.site.glob("pylbr-*.dist-info")
    tag = re.search(r"^Tag: (.*)$", (info / "WHEEL").read_text(), re.M)[1]
    path = folder / f"{info.name.removesuffix('.dist-info')}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as file:
        for top in ("pylbr", "lbrcore", info.name):
            for one in sorted((installed.site / top).rglob("*")):
                if one.is_file() and one.suffix != ".pyc":
                    file.write(one, one.relative_to(installed.site))
    return path


@pytest.mark.slow
@pytest.mark.peer
def test_the_steps_of_the_action_give_a_faster_program(installed, tmp_path):
    try:
        usable()
        find_bolt(None)
    except LbrError as error:
        pytest.skip(str(error))
    subprocess.run(["gcc", "-O1", "-fno-reorder-blocks", "-Wl,-q", "-o", tmp_path / "app",
                    ROOT / "tests" / "optimize" / "layout.c"], check=True)
    given = {name: one.get("default", "") for name, one in ACTION["inputs"].items()}
    given |= {"command": "./app '9000000'", "package": str(wheel_of(installed, tmp_path))}
    files = {name: tmp_path / name.lower() for name in (
        "GITHUB_PATH", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path),
            "RUNNER_TEMP": str(tmp_path / "temp"), "GITHUB_ACTION_PATH": str(ROOT),
            **{name: str(path) for name, path in files.items()}}
    base |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    (tmp_path / "temp").mkdir()
    for step in STEPS:
        if "run" not in step:
            continue
        path = files["GITHUB_PATH"].read_text().split() if files["GITHUB_PATH"].exists() else []
        environment = {name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda one: given[one[1]], text)
                       for name, text in step["env"].items()}
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", step["run"]], cwd=tmp_path, text=True,
            capture_output=True, env={**base, "PATH": ":".join([*path, base["PATH"]]),
                                      **environment})
        assert done.returncode == 0, (step["name"], done.stderr)
    results = tmp_path / "pylbr-results"
    assert files["GITHUB_OUTPUT"].read_text() == "folder=pylbr-results\n"
    assert "step+0x" in files["GITHUB_STEP_SUMMARY"].read_text()
    gain = json.loads((results / "gain.json").read_text())
    assert gain["bytes"][1] == (results / "app.bolt").stat().st_size
    assert os.access(results / "app.bolt", os.X_OK) and (results / "perf.data").stat().st_size


def instructions():
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.M)
    return [line.split(None, 1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def test_the_container_file_is_one():
    known = {"FROM", "RUN", "COPY", "WORKDIR", "ENTRYPOINT"}
    stages = []
    for name, rest in instructions():
        assert name in known, name
        words = rest.split()
        if name == "FROM":
            stages.append(words[-1] if "AS" in words else "")
        elif name == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)
        elif name == "COPY" and words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages
        elif name == "COPY":
            assert all((ROOT / word).exists() for word in words[:-1]), rest
        elif name == "ENTRYPOINT":
            assert json.loads(rest) == ["pylbr"]
    assert len(stages) == 2


def test_the_container_installs_what_the_build_reads():
    """Each file that setup.py and pyproject.toml name is copied."""
    copied = {word for name, rest in instructions() if name == "COPY" for word in shlex.split(rest)}
    read = re.findall(r'(?:readme = |license-files = \[)"([^"]+)"',
                      (ROOT / "pyproject.toml").read_text())
    assert {"pyproject.toml", "setup.py", "lbrcore", "pylbr", *read} <= copied
    assert sys.version_info >= (3, 11)
