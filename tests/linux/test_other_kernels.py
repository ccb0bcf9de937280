"""Kernels that are no Linux, as Debian has them."""

import gzip
import re

import pytest

from pylbr.cli import main
from pylbr.linux import debian

pytestmark = pytest.mark.peer


def test_memtest_tests_the_memory(capsys):
    """memtest86+ follows Linux's boot protocol, and writes to the screen."""
    image = debian.root_of("memtest86+", "boot/memtest86+x64.bin") / "boot/memtest86+x64.bin"
    code = main(["run", "--kernel", str(image), "--append", "nopause nobench nosmp nosm",
                 "--memory", "16", "--limit", "200000000"])
    screen = capsys.readouterr().err
    assert code == 124
    assert re.search(r"Memory  :   15MB .*\n.*\n.*Status: Testing", screen), screen
    assert re.search(r"Test #\d+ +\[.*\n.*Testing: \w+ - \w+", screen) and "Errors: 0" in screen


def test_gnu_mach_asks_for_its_bootstrap_task(tmp_path, capfd):
    """A multiboot image; without the Hurd as its module it ends by itself."""
    name = "boot/gnumach-1.8-486.gz"
    image = tmp_path / "gnumach"
    image.write_bytes(gzip.decompress(
        (debian.root_of("gnumach-image-1.8-486", name) / name).read_bytes()))
    code = main(["run", str(image), "--append", "console=com0", "--limit", "20000000"])
    printed = capfd.readouterr().out
    assert code == 124
    assert printed.startswith("GNU Mach 1.8") and "vm_page: DMA32" in printed
    assert "panic ../kern/bootstrap.c" in printed and "No bootstrap code loaded" in printed
