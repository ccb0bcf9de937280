"""CONTRIBUTING's recipe of a policy, executed as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SOURCE = re.search(r"```cython\n(.*?)```", TEXT, re.S).group(1)
ENTRY_POINT = re.search(r"```toml\n(.*?)```", TEXT, re.S).group(1)

SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup
import lbrcore
import pylbr
setup(name="patient", ext_modules=cythonize(
    [Extension("patient", ["patient.pyx"], include_dirs=[lbrcore.get_include()],
               extra_compile_args=["-O1", "-g0"])], language_level=3,
    include_path=[pylbr.__path__[0] + "/.."]))
"""


def run(*words, path=(), cwd=None):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=env,
                          capture_output=True, text=True, timeout=500)


def holds_everything(*path):
    """One table of states, and one of properties: the policy keeps what it claims."""
    result = run("-P", "-m", "pylbr", "verify", "patient", "--depth", 1, path=path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\| patient +\| 1 .*\| yes", result.stdout)
    assert result.stdout.count("| holds") == 13
    broken = run("-P", "-m", "pylbr", "verify", "nobody", path=path)
    assert broken.returncode and "patient" in broken.stderr, "it is listed"


@pytest.mark.slow
def test_one_file_in_a_copy_of_the_tree_is_a_policy(tmp_path):
    for name in ("lbrcore", "pylbr"):
        shutil.copytree(ROOT / name, tmp_path / name)
        shutil.copytree(ROOT / name, tmp_path / "built" / name, ignore=shutil.ignore_patterns(
            "*.py", "*.p*", "*.c", "*.h"))  # what is built is not built again
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, tmp_path)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "built").rglob("*.so")}
    (tmp_path / "pylbr/arbitration/patient.pyx").write_text(SOURCE)
    built = run("setup.py", "-q", "build_ext", "--inplace", "--build-lib", "built", cwd=tmp_path)
    assert built.returncode == 0, built.stderr[-3000:]
    new = {file.name.split(".")[0] for file in (tmp_path / "built").rglob("*.so")
           if before.get(file) != file.stat().st_mtime_ns}
    assert new == {"patient"}, "nothing else changes"
    holds_everything(tmp_path)


@pytest.mark.slow
def test_a_package_of_its_own_is_a_policy(tmp_path):
    (tmp_path / "patient.pyx").write_text(SOURCE)
    (tmp_path / "setup.py").write_text(SETUP)
    built = run("setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path)
    assert built.returncode == 0, built.stderr[-3000:]
    about = tmp_path / "patient-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: patient\nVersion: 1\n")
    group, entry = re.search(r'entry-points\."(.*?)"\]\n(.*)', ENTRY_POINT).groups()
    (about / "entry_points.txt").write_text(f"[{group}]\n{entry.replace(chr(34), '')}\n")
    holds_everything(tmp_path)


def test_a_package_that_cannot_be_loaded_is_one_line(tmp_path):
    about = tmp_path / "patient-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: patient\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[pylbr.policies]\npatient = nowhere:Patient\n")
    result = run("-P", "-m", "pylbr", "verify", "patient", path=[tmp_path])
    assert result.returncode and "Traceback" not in result.stderr
    assert "policy 'patient' (nowhere:Patient): No module named 'nowhere'" in result.stderr
    others = run("-P", "-m", "pylbr", "verify", "mediated", "--depth", 1, path=[tmp_path])
    assert others.returncode == 0, others.stderr
