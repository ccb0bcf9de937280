"""Type checkers of users: pyright, beside mypy in `test_profile_tables`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WRONG = """import pylbr
name: str = pylbr.profile_of("x").samples
pylbr.open(3)
pylbr.profile_of("x").rows(by="edges")
pylbr.missing
pylbr.LbrState(3)
pylbr.record(["/bin/true"], hertz=3)
"""


@pytest.mark.slow
def test_pyright_is_strict_about_a_users_program(tmp_path):
    """It takes the program that is right, and finds each line that is wrong."""
    if not shutil.which("node"):
        pytest.skip("no node")
    shutil.copy(ROOT / "tests" / "api" / "user_program.py", tmp_path / "right.py")
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({
        "include": ["right.py", "wrong.py"], "typeCheckingMode": "strict",
        "extraPaths": [str(ROOT)], "reportUnusedExpression": False,
        # pyarrow, which `to_arrow` is about, has no types.
        "reportMissingTypeStubs": False, "reportUnknownMemberType": "warning",
        "reportUnknownVariableType": "warning"}))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable,
         "-p", tmp_path], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})
    if not done.stdout.lstrip().startswith("{"):
        pytest.skip(f"pyright cannot run: {done.stderr[-300:]}")
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [(Path(one["file"]).name, one["range"]["start"]["line"] + 1, one["message"])
              for one in found if one["severity"] == "error"]
    assert [error for error in errors if error[0] == "right.py"] == []
    assert sorted({line for name, line, _ in errors if name == "wrong.py"}) == [2, 3, 4, 5, 6, 7]
