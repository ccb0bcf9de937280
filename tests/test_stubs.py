"""The .pyi files say what the compiled modules are."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ALLOWED = r"""
.*\.__pyx_capi__
.*\.__test__
.*\.__reduce_cython__
.*\.__setstate_cython__
.*\.__reduce__
.*\.__pyx_.*
lbrcore\._cyutility
pylbr\.arbitration\..*\.__init__
"""


@pytest.mark.slow
def test_stubs(tmp_path):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted([*ROOT.glob("lbrcore/*.pyi"), *ROOT.glob("pylbr/**/*.pyi")])
    ]
    assert "lbrcore.lbr" in modules
    allowed, config = tmp_path / "allowed", tmp_path / "mypy.ini"
    allowed.write_text(ALLOWED.strip() + "\n")
    config.write_text("[mypy]\nignore_missing_imports = True\nfollow_imports = silent\n")
    result = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "--ignore-missing-stub", "--allowlist",
         str(allowed), "--ignore-unused-allowlist", "--mypy-config-file", str(config), *modules],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
