"""The mutator: what it changes, and a short run of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import pytest

from tests.mutants.__main__ import SURVIVORS
from tests.mutants.building import ROOT
from tests.mutants.edits import changes
from tests.mutants.targets import NEAREST, nearest
from tests.mutants.weaving import SWITCH, weave


def changed(text):
    return {text[:edit.start] + edit.new + text[edit.end:] for edit in changes(text)}


@pytest.mark.parametrize(("text", "wanted"), [
    ("x = a + 1", {"x = a - 1", "x = a + 2"}),
    ("a <= b", {"a < b", "a > b"}),
    ("x = <uint64_t> 1 << n", {"x = <uint64_t> 2 << n", "x = <uint64_t> 1 >> n"}),
    ("f(&a, b)", {"f(b, &a)"}),
    ("f(a, k=b)", {"f(a)"}),
    ("x |= ~y", {"x &= ~y", "x |= y"}),
    ("x = [i for i in y if i in z]", {"x = [i for i in y if i not in z]"}),
    ("x = a is not None and b", {"x = a is None and b", "x = a is not None or b"}),
    ("x = not a or not b", {"x =  a or not b", "x = not a or  b", "x = not a and not b"}),
    ("x = True", {"x = False"}),
    ("raise E('a + 1')", set()),
])
def test_changes(text, wanted):
    assert changed(text) == wanted


def test_a_woven_module_is_the_same_until_a_mutant_is_selected():
    source = (
        '"""A + 1."""\nfrom __future__ import annotations\nN = 1 + 1\ndef f(a, b=2):\n'
        '    """1 + 1"""\n    if a < b:\n        return a + 1  # + 1\n    while a:\n'
        '        a -= 1\n        b += 2\n    return f(b,\n             100)\n')
    woven = weave("m.py", source, 1)
    assert len(woven.mutants) == len({m.key for m in woven.mutants.values()}) > 12
    text = re.sub(rf"from .* import .* as {SWITCH}\n", "", woven.text)
    results = []
    for number in range(min(woven.mutants), max(woven.mutants) + 1):
        names = {SWITCH: lambda n, number=number: n == number}
        calls = iter(range(50))

        def limited(n, number=number, calls=calls):
            next(calls)  # StopIteration ends an endless loop
            return n == number

        names[SWITCH] = limited
        exec(text, names)
        try:
            results.append(names["f"](3))
        except (StopIteration, RecursionError, TypeError) as error:
            results.append(type(error))
    plain, unselected = {}, {SWITCH: lambda n: False}
    exec(source, plain)
    exec(text, unselected)
    assert [unselected["f"](n) for n in range(5)] == [plain["f"](n) for n in range(5)]
    same = sum(result == plain["f"](3) for result in results)
    assert same < len(results) / 2


@pytest.mark.parametrize("file", ["pylbr/cpu/msr/access.py", "pylbr/trace/csv_file.py",
                                  "pylbr/perf/record_reader.py"])
def test_woven_sources_are_python(file):
    woven = weave(file, (ROOT / file).read_text(), 1)
    compile(woven.text, file, "exec")
    assert len(woven.mutants) > 50


def test_tests_are_listed_where_they_are():
    for tests in NEAREST.values():
        assert all((ROOT / name).exists() for name in tests)
    assert nearest("lbrcore/control.pyx") != nearest("lbrcore/scan.pyx")
    with pytest.raises(KeyError, match="setup.py"):
        nearest("setup.py")


def test_survivors_have_reasons_and_stand_in_sources():
    rows = tomllib.loads(SURVIVORS.read_text())["survivor"]
    keys = {}
    for file in {row["file"] for row in rows}:
        keys[file] = {m.key for m in weave(file, (ROOT / file).read_text(), 1).mutants.values()}
    assert not [row for row in rows if len(row["reason"]) < 20]
    assert not [row["change"] for row in rows if row["key"] not in keys[row["file"]]], (
        "the statement has changed: run `python -m tests.mutants` on the file again")


@pytest.mark.slow
def test_a_short_run_kills(tmp_path):
    """Of the control registers: woven, built, and found by one file of tests."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--most", "25", "--results", tmp_path, "--tests",
         "tests/cpu/test_select.py", "lbrcore/control.pyx"], cwd=ROOT, capture_output=True,
        text=True, env={**os.environ, "CC": "gcc"})
    killed, total, unreached = map(int, re.search(
        r"(\d+) of (\d+) killed, (\d+) reached by no test", done.stdout).groups())
    assert total == 25 and killed >= 6, done.stdout
    assert 0 < unreached <= total - killed and done.returncode == 1
