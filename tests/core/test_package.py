"""What the installed package carries."""

import shutil
import subprocess
import sys

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
    """The README's example of the core, run as it stands there."""
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    code, = (code for block in blocks if "from lbrcore import" in (code := block.split("```")[0]))
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


@pytest.mark.slow
def test_the_wheel_brings_the_recorder_ready(installed, tmp_path):
    """Where there is no compiler; what is ready is made from the C that is installed."""
    code = ("import sys; from pylbr.record.parts import PARTS, compiler, ready\n"
            "assert compiler() is None\n"
            "for part in PARTS: print(part.name, ready(part))")
    environment = {**installed.environment, "PATH": "/nonexistent", "CC": "no-such-cc",
                   "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    lines = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True,
                           capture_output=True, text=True).stdout.splitlines()
    ready = dict(map(str.split, lines))
    assert set(ready) == {"plugin.so", "launch", "blob.elf", "full.elf", "init"}
    assert all(path.startswith(str(installed.site)) for path in ready.values())
    engine = subprocess.run(
        [sys.executable, "-c", "from pylbr.record.native.engine import usable; print(usable())"],
        env=environment, cwd=tmp_path, capture_output=True, text=True)
    if "UnsupportedFeature" in engine.stderr:
        pytest.skip(engine.stderr.splitlines()[-1])
    done = subprocess.run(
        [sys.executable, "-m", "pylbr", "record", "-o", "x.data", "--", sys.executable, "-S", "-c",
         "sum(i * i for i in range(600000))"], env=environment, cwd=tmp_path, capture_output=True,
        text=True)
    assert done.returncode == 0 and (tmp_path / "x.data").exists(), done.stderr
    assert not (tmp_path / "cache").exists(), "nothing was compiled"


@pytest.mark.slow
def test_a_part_whose_c_was_changed_is_not_the_wheels(installed, tmp_path):
    copy = tmp_path / "site"
    shutil.copytree(installed.site / "pylbr" / "record", copy / "pylbr" / "record")
    for name in ("x86", "linux/guest"):
        shutil.copytree(installed.site / "pylbr" / name, copy / "pylbr" / name)
    shutil.copytree(installed.site / "lbrcore/include", copy / "lbrcore/include")
    shown = "; print([part.name for part in p['PARTS'] if p['ready'](part)])"
    code = f"import runpy; p = runpy.run_path('{copy}/pylbr/record/parts.py'){shown}"

    def names():
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                              check=True).stdout

    assert names() == "['plugin.so', 'launch', 'blob.elf', 'full.elf', 'init']\n"
    with (copy / "pylbr/x86/decode.h").open("a") as file:
        file.write("/* another */\n")
    assert names() == "['init']\n"
    (copy / "pylbr/linux/guest/init.c").unlink()
    assert "FileNotFoundError" in subprocess.run([sys.executable, "-c", code], text=True,
                                                 capture_output=True).stderr
