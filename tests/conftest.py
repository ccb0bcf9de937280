"""What the tests of several packages share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from tests import once

ROOT = Path(__file__).resolve().parent.parent
#: Real recorded files, beside the checkout.
SHARED = Path(os.environ.get("PYLBR_SHARED_DATA", ROOT.parent / "shared" / "data"))

# The machine may be loaded: no time limit per example.
settings.register_profile("loaded", settings(), deadline=None)
settings.load_profile("loaded")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where CI=true nothing that a test needs may be missing: a skip is a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {call.excinfo.value}"
    return report


def heed_interrupts() -> None:
    """For ``preexec_fn``: a job in the background starts its children with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Installed:
    """The package as a user gets it, apart from the checkout.

    Attributes
    ----------
    site : Path
        Directory to be put on PYTHONPATH.
    """

    site: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which ``import lbrcore`` finds the installed package only.

        Its dependencies come from the running interpreter, also for programs that embed
        Python and know nothing of a virtual environment.
        """
        paths = [str(self.site), *(path for path in sys.path if path.endswith("site-packages"))]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    @property
    def include(self) -> Path:
        """Directory of ``lbrcore.h``, as the installed package reports."""
        return Path(self.python("-c", "import lbrcore; print(lbrcore.get_include())").strip())

    @property
    def x86_include(self) -> Path:
        """Directory of ``decode.h``, as the installed package reports."""
        return Path(self.python("-c", "from pylbr import x86; print(x86.get_include())").strip())

    def python(self, *arguments: str, cwd: Path | None = None) -> str:
        """Standard output of Python run with `arguments` outside the checkout."""
        return subprocess.run(
            [sys.executable, *arguments], env=self.environment, cwd=cwd or self.site,
            check=True, capture_output=True, text=True, timeout=300,
        ).stdout


@pytest.fixture(scope="session", autouse=True)
def _directory_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    once.directory = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def installed() -> Installed:
    """pylbr of a clean copy of the tracked files, with the extensions of the checkout, installed
    once a test run."""
    return Installed(once.built("installed", _install) / "site")


def _copy_built(pyx: str, source: Path) -> None:
    """C and extension as they were made in the checkout: the build makes them again if a source of
    theirs is newer."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    library = source / "build" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    for made, place in ((".c", source), (suffix, library)):
        path = ROOT / pyx.replace(".pyx", made)
        if path.exists():
            (place / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place / path.relative_to(ROOT))


def _install(base: Path) -> None:
    source, site = base / "source", base / "site"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if name.split("/")[0] in ("tests", "bench", "docs") or not (ROOT / name).is_file():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
        if name.endswith(".pyx"):
            _copy_built(name, source)
    result = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps",
         "--disable-pip-version-check", "--root-user-action=ignore", "--target", str(site),
         str(source)],
        capture_output=True, text=True, timeout=600,
    )
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.fixture(scope="session")
def shared():
    """Path of a real recorded file beside the checkout."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{path} is not there (PYLBR_SHARED_DATA names its folder)")
        return path

    return find
