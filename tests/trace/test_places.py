"""Files of a trace that is a directory: one that is missing, moved or foreign is named."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE
from pylbr import trace
from pylbr.cli import main
from pylbr.errors import TraceError
from pylbr.trace import metadata as metadata_module
from pylbr.trace.metadata import Metadata

PARTS, ROWS = 5, 40


def write(folder, seed=1, model="skylake", rows=ROWS * (PARTS - 1) + 7):
    """A directory of parts."""
    branches = np.zeros(rows, BRANCH_DTYPE)
    rng = np.random.default_rng(seed)
    branches["from"], branches["to"] = rng.integers(1, 1 << 40, (2, rows))
    with trace.PartitionedWriter(folder, Metadata(model=model), rows=ROWS) as out:
        for at in range(0, rows, 23):
            out.write(branches[at:at + 23])
    return branches


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places") / "t.parquet"
    return folder, write(folder)


def copy(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def part(folder, number):
    return folder / f"part-{number:05}.parquet"


def other(tmp_path, **kwargs):
    write(tmp_path / "other.parquet", **kwargs)
    return tmp_path / "other.parquet"


def of_another_version(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata_module, "VERSION", 2)
        return other(tmp_path)


def swapped(folder, *_):
    part(folder, 1).rename(folder / "x")
    part(folder, 3).rename(part(folder, 1))
    (folder / "x").rename(part(folder, 3))


def replaced_by(source):
    return lambda folder, place: shutil.copy(part(source(place), 2), part(folder, 2))


def _alone(folder, *_):
    for number in (0, 1, 2, 4):
        part(folder, number).unlink()


def _plain(folder, place):
    with trace.Writer(place / "x.parquet", Metadata(model="skylake")) as out:
        out.write(np.zeros(ROWS, BRANCH_DTYPE))
    shutil.copy(place / "x.parquet", part(folder, 2))


KINDS = {
    "the first is missing": (lambda f, _: part(f, 0).unlink(), "part-00001", "part 0, which is"),
    "one is missing": (lambda f, _: part(f, 2).unlink(), "part-00003", "part 2, which is missing"),
    "the last is missing": (lambda f, _: part(f, 4).unlink(), "part-00003", "part 4 is missing"),
    "only one is there": (_alone, "part-00003", "part 0, which is missing"),
    "one is there twice": (lambda f, _: shutil.copy(part(f, 1), f / "x.parquet"), "x.parquet",
                           "is part 1 of its trace, which part-00001.parquet is, too"),
    "one has the name of another, too": (lambda f, _: shutil.copy(part(f, 1), part(f, 2)),
                                         "part-00002", "which part-00001.parquet is, too"),
    "two have each other's names": (swapped, "part-00001", "is part 3 of its trace, and in"),
    "one overlaps, of another division": (
        replaced_by(lambda p: other(p, rows=ROWS * 5 + 9, seed=4)), "part-00002", "did not follow"),
    "one is of another trace": (replaced_by(lambda p: other(p, seed=2)), "part-00002",
                                "did not follow part-00001.parquet"),
    "one is of another processor": (replaced_by(lambda p: other(p, model="alder-lake-p")),
                                    "part-00002", "another processor (alder-lake-p, not skylake)"),
    "one is of another version": (replaced_by(of_another_version), "part-00002",
                                  "container version 2; this reader supports version 1"),
    "one is no part": (_plain, "part-00002", "no part of the trace"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_with_the_parts_is_one_line_that_names_one(whole, tmp_path, kind, capsys):
    spoil, name, what = KINDS[kind]
    folder = copy(whole, tmp_path)
    spoil(folder, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    for words in (["convert", str(folder), "-o", str(out / "o.csv")], ["inspect", str(folder)],
                  ["replay", str(folder), "-c", "10", "-o", str(out / "o.perf.data")]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and name in error and what in error, error
    assert not list(out.iterdir())


@given(st.lists(st.integers(0, PARTS - 1), min_size=1, max_size=PARTS + 1))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_no_other_order_of_the_parts_is_read(whole, tmp_path_factory, order):
    """Whichever files lie there under whichever names: the whole trace, or an error."""
    folder = tmp_path_factory.mktemp("order")
    for place, number in enumerate(order):
        shutil.copy(part(whole[0], number), part(folder, place))
    if order == list(range(PARTS)):
        with trace.open(folder) as source:
            assert np.array_equal(source.read(0, source.count), whole[1])
        return
    with pytest.raises(TraceError):
        trace.open(folder)


@pytest.mark.parametrize("rows", [1, ROWS, ROWS + 1, 3 * ROWS])
def test_any_length_is_read_again(tmp_path, rows):
    branches = write(tmp_path / "t.parquet", rows=rows)
    assert len(list((tmp_path / "t.parquet").iterdir())) == -(-rows // ROWS)
    with trace.open(tmp_path / "t.parquet") as source:
        assert np.array_equal(source.read(0, rows), branches)


def test_a_part_alone_is_a_trace(whole):
    """For tools that take one file each."""
    with trace.open(part(whole[0], 2)) as source:
        assert np.array_equal(source.read(0, ROWS), whole[1][2 * ROWS:3 * ROWS])
