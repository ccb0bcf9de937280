"""Native recordings in tests: the command as a user calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pylbr.errors import UnsupportedFeature
from pylbr.record.native.engine import usable
from tests.record.conftest import ROOT, need

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def native():
    """The machine can record natively."""
    reason = ""
    try:
        usable()
    except UnsupportedFeature as error:
        reason = str(error)
    need(not reason, reason)


@pytest.fixture
def native_record(native, tmp_path):
    """``pylbr record --engine native``; path of the file and the finished process."""

    def record(*arguments, options=("-F", "1000"), check=0, **keywords):
        path = tmp_path / "out.data"
        result = subprocess.run(
            [sys.executable, "-m", "pylbr", "record", "--engine", "native", *options, "-o", path,
             "--", *arguments],
            **{"cwd": tmp_path, "capture_output": True, "timeout": 120,
               "env": {**os.environ, "PYTHONPATH": str(ROOT)}, **keywords},
        )
        if check is not None:
            assert result.returncode == check, result.stderr
        return path, result

    return record
