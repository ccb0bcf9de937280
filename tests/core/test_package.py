"""What the installed package carries."""

import pytest


@pytest.mark.slow
def test_wheel_contents(installed):
    """Header, .pxd, .pyi, .pyx and the marker of typed packages are there for users."""
    core = installed.site / "lbrcore"
    for name in ("include/lbrcore.h", "__init__.pxd", "lbr.pxd", "xsave.pxd", "lbr.pyi",
                 "xsave.pyi", "lbr.pyx", "py.typed"):
        assert (core / name).is_file(), name
    assert (installed.site / "pylbr" / "py.typed").is_file()
    assert not list(core.glob("*.c")), "generated C does not belong into the wheel"


@pytest.mark.slow
def test_readme_example(installed):
    """The example of the README, run as it stands there."""
    from tests.conftest import ROOT

    text = (ROOT / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    out = installed.python("-c", code)
    assert "4198416" in out and out.index("4198416") < out.index("4198912")
