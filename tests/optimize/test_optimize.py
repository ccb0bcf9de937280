"""``pylbr optimize``: a program with a bad layout gets a good one, and what it gains is counted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pylbr.cli import main
from pylbr.errors import CommandError
from pylbr.optimize.bolt import find_bolt
from pylbr.optimize.measure import Run, check, taken_branches

HERE = Path(__file__).parent
#: Every step takes 8 jumps over code that never runs, a call, a return and the loop's branch.
STEPS, BEFORE, AFTER = 4_000_000, 11, 3


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("optimize") / "layout"
    subprocess.run(["gcc", "-O1", "-fno-reorder-blocks", "-Wl,-q", HERE / "layout.c", "-o", path],
                   check=True)
    return str(path)


@pytest.fixture
def bolt():
    try:
        return find_bolt()
    except CommandError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("version", [19, 22])
def test_a_bad_layout_is_mended_and_counted(program, tmp_path, capfd, version, bolt):
    folder = f"/usr/lib/llvm-{version}/bin"
    if not os.path.exists(f"{folder}/perf2bolt") and os.environ.get("CI") != "true":
        pytest.skip(f"{folder} has no perf2bolt")
    out = tmp_path / "fast"
    assert main(["optimize", "-F", "5000", "--repeat", "1", "--bolt", folder, "--json",
                 "--keep", str(tmp_path / "kept"), "-o", str(out), "--", program,
                 str(STEPS)]) == 0
    said, errors = capfd.readouterr()
    found = json.loads(said[said.index("{"):])
    before, after = found["taken_branches"]
    # The loop, and what starts and ends the program.
    assert 0 < before - BEFORE * STEPS < 100_000
    assert 0 < after - AFTER * STEPS < 100_000
    assert f"BOLT {version} laid out 2 functions" in errors and "do not fit" not in errors
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {
        "perf.data", "perf.preagg", "perf.fdata", "optimised"}
    assert os.access(out, os.X_OK)
    texts = {subprocess.check_output([path, "1000"]) for path in (program, out)}
    assert len(texts) == 1


@pytest.mark.peer
def test_without_a_count_nothing_is_counted(program, tmp_path, monkeypatch, capfd, bolt):
    monkeypatch.chdir(tmp_path)
    shutil.copy(program, "app")
    assert main(["optimize", "-F", "5000", "--repeat", "1", "--no-count", "--", "./app",
                 str(STEPS)]) == 0
    lines = capfd.readouterr().out.splitlines()
    (taken,) = [line.split() for line in lines if line.startswith("taken")]
    assert taken == ["taken", "branches", "n/a", "n/a", "n/a"]
    assert os.access("app.bolt", os.X_OK) and os.listdir() != ["app"]


@pytest.mark.peer
def test_a_program_is_compiled_again_with_its_profile(tmp_path, monkeypatch, capfd):
    clang = next(iter(sorted(Path("/usr/bin").glob("clang-1[49]"), reverse=True)), None)
    if clang is None and os.environ.get("CI") != "true":
        pytest.skip("no clang")
    monkeypatch.chdir(tmp_path)
    shutil.copy(HERE / "layout.c", "layout.c")
    subprocess.run([clang, "-O1", "-g", "-o", "app", "layout.c"], check=True)
    assert main(["optimize", "-F", "5000", "--repeat", "1", "--no-count", "--keep", "kept",
                 "--rebuild", f"{clang} -O2 -g -fprofile-sample-use={{profile}} -o {{output}} "
                 "layout.c", "--", "./app", str(STEPS)]) == 0
    out, errors = capfd.readouterr()
    assert "compiled again with the profile: ./app.optimised" in errors
    assert "CPU seconds" in out
    assert (tmp_path / "kept" / "perf.prof.txt").read_text().startswith(("main:", "step:"))
    texts = {subprocess.check_output([f"./{name}", "1000"]) for name in ("app", "app.optimised")}
    assert len(texts) == 1


@pytest.mark.parametrize(("words", "message"), [
    (["--rebuild", "cc -o {output}", "--", "true"], "must name {profile} and {output}"),
    (["--rebuild", "x", "--bolt", "/", "--", "true"], "--bolt, --rebuild: give one of them"),
    ([], "no program given"), (["--", "no-such-program"], "there is no such program"),
    (["--repeat", "0", "--", "true"], "--repeat: at least 1"),
    (["--bolt", "/", "--", "true"], "no perf2bolt and llvm-bolt on /"),
    (["--", "{script}"], "is a script"),
    (["-o", "{program}", "--", "{program}"], "is the program itself"),
    (["--", "{program}", "1000", "3"], "ended with 3; nothing was optimised"),
])
def test_mistakes_are_named(program, tmp_path, capfd, words, message, bolt):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    given = [word.replace("{script}", str(script)).replace("{program}", program)
             for word in words]
    assert main(["optimize", *given]) in (1, 2)
    assert message in capfd.readouterr().err.splitlines()[-1]
    assert not Path(f"{program}.bolt").exists()


def test_a_program_that_has_changed_is_not_handed_out_in_silence():
    good, other = Run(0, 0.1, "a"), Run(0, 0.1, "b")
    assert check([good], [good]) == ""
    with pytest.raises(CommandError, match="prints something else"):
        check([good, good], [other])
    assert "was not compared" in check([good, other], [good])
    with pytest.raises(CommandError, match=r"ends with \[-11\]"):
        check([good], [Run(-11, 0.1, "a")])


def test_what_cannot_be_counted_is_none(tmp_path):
    assert taken_branches([str(tmp_path / "missing")]) is None
