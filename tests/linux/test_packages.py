"""What the guest's file system is made of, where the machine has none of it installed."""

from itertools import islice

import pytest

from pylbr.errors import UnsupportedFeature
from pylbr.linux import debian
from pylbr.linux.libraries import libraries

pytestmark = pytest.mark.peer

PERF = "usr/bin/perf"


def test_perfs_libraries_come_from_the_packages_that_it_depends_on():
    root = debian.fetch("linux-perf")
    found = libraries([root / PERF], (root,), debian.dependencies("linux-perf"))
    names = {place.rsplit("/", 1)[1].split(".so")[0] for place in found}
    assert {"libc", "libdw", "libelf", "libopencsd_c_api", "libslang"} <= names
    cache = root.parent
    assert all(file.is_relative_to(cache) for file in found.values())


def test_packages_are_fetched_as_long_as_something_is_missing():
    assert len(list(islice(debian.dependencies("linux-perf"), 2))) == 2
    root = debian.fetch("linux-perf")
    with pytest.raises(UnsupportedFeature, match="which is in none of the usual folders"):
        libraries([root / PERF], (root,))
