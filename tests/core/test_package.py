"""What the installed package carries."""

import subprocess

import pytest

from tests.conftest import ROOT
from tests.test_house import tracked


@pytest.mark.slow
def test_wheel_contents(installed):
    """Header, .pxd, .pyi, .pyx and the marker of typed packages are there for users."""
    core = installed.site / "lbrcore"
    for name in ("include/lbrcore.h", "__init__.pxd", "lbr.pxd", "xsave.pxd", "lbr.pyi",
                 "xsave.pyi", "lbr.pyx", "py.typed"):
        assert (core / name).is_file(), name
    assert (installed.site / "pylbr" / "py.typed").is_file()
    sources = tracked("lbrcore/*.h", "pylbr/*.c", "pylbr/*.h", "pylbr/*.S")
    assert len(sources) > 20
    for source in sources:  # what is compiled where programs are recorded
        assert (installed.site / source.relative_to(ROOT)).is_file(), source
    for package in ("lbrcore", "pylbr"):
        for pattern in ("*.pxd", "*.pyi"):
            for source in (ROOT / package).rglob(pattern):
                assert (installed.site / source.relative_to(ROOT)).is_file(), source
    generated = [path for path in installed.site.rglob("*.c") if path.with_suffix(".pyi").exists()]
    assert not generated, "generated C does not belong into the wheel"


@pytest.mark.slow
def test_readme_example(installed):
    """The example of the README, run as it stands there."""
    text = (ROOT / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    out = installed.python("-c", code)
    assert "4198416" in out and out.index("4198416") < out.index("4198912")


@pytest.mark.slow
def test_liblbrcore_is_in_the_wheel(installed, tmp_path):
    """`python -m lbrcore` names it, and a program linked with it runs without Python."""
    for kind in ("--libs", "--static"):
        flags = installed.python("-m", "lbrcore", "--cflags", kind).split()
        program = tmp_path / kind.strip("-")
        subprocess.run(["gcc", "-O2", str(ROOT / "examples/c/emulator.c"), *flags, "-o",
                        str(program)], check=True, timeout=120)
        out = subprocess.run([str(program)], check=True, capture_output=True, text=True, env={},
                             timeout=60).stdout
        assert out.startswith("fib(10) = 55\n 0 0x401038"), kind
    assert not list((installed.site / "lbrcore/lib").glob("*.o"))
