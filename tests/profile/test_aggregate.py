import os
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

import pylbr.perf._entries as some_module
from pylbr.errors import TraceError
from pylbr.files.elf import ElfImage
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, entry_flags
from pylbr.perf.stacks import Mmap, Samples
from pylbr.profile import _aggregate, reference
from pylbr.profile.address_space import AddressSpaces
from pylbr.profile.aggregate import collect
from pylbr.profile.link import OUTSIDE, link_profile
from pylbr.profile.symbols import Place, Symbols

LIBRARY = some_module.__file__
MISSED = entry_flags(mispredicted=True, cycles=5)
HIT = entry_flags(predicted=True, cycles=7)


def stacks(stack, **columns):
    nr = [len(entries) for entries in stack]
    flat = [entry for entries in stack for entry in entries]
    return Samples.build(np.cumsum([0, *nr]), np.array(flat, BRANCH_ENTRY_DTYPE), **columns)


# Few addresses, so that pairs repeat and entries are empty; all flag bits that are counted.
entries = st.tuples(
    st.integers(0, 5), st.integers(0, 5),
    st.builds(lambda bits, not_taken: bits | bits << 4 | not_taken << 33,
              st.integers(0, 3), st.booleans()),
)


@given(st.lists(st.tuples(st.integers(-1, 2), st.lists(entries, max_size=5)), max_size=8))
def test_twins_agree(drawn):
    pids = np.array([p for p, _ in drawn], "i4")
    samples = stacks([s for _, s in drawn], pid=pids, ip=np.arange(len(drawn)) % 3)
    tables = []
    for module in (_aggregate, reference):
        edges, runs, ips = (module.PairTable() for _ in range(3))
        counted = edges.add_edges(samples), edges.flags, edges.not_taken
        broken = runs.add_runs(samples)
        assert len(edges) == len(edges.to_array())
        ips.add_ips(samples)
        tables.append((*(t.to_array().tolist() for t in (edges, runs, ips)), broken, counted))
    assert tables[0] == tables[1]


def test_table_grows():
    random = np.random.default_rng(1)
    flat = np.zeros(50_000, BRANCH_ENTRY_DTYPE)
    flat["from"] = random.integers(0, 200, 50_000)
    flat["to"] = random.integers(0, 200, 50_000)
    samples = Samples.build(np.arange(0, 50_001, 10), flat)
    fast, slow = _aggregate.PairTable(), reference.PairTable()
    fast.add_edges(samples)
    slow.add_edges(samples)
    assert len(fast) > 25_000
    assert fast.to_array().tolist() == slow.to_array().tolist()


def test_profile_counts_by_hand():
    records = [
        stacks([[(0x30, 0x10, HIT), (0x14, 0x20, MISSED), (0x30, 0x10, HIT)], []],
               pid=4, ip=np.array([0x10, 0x12], "u8")),
        stacks([[(0x14, 0x20, HIT), (0x30, 0x18, MISSED)]], pid=4, ip=0x10),
    ]  # fmt: skip
    profile = collect(records)
    assert (profile.samples, profile.entries, profile.broken) == (3, 5, 1)
    assert profile.edges.tolist() == [
        (0x14, 0x20, 0, 2, 1, 12, 2, 4), (0x30, 0x10, 0, 2, 0, 14, 2, 4),
        (0x30, 0x18, 0, 1, 1, 5, 1, 4),
    ]  # fmt: skip
    assert profile.traces.tolist() == [
        (0x10, 0x14, 0x30, 1, 1, 5, 1, 4), (0x20, 0x30, 0x14, 1, 0, 7, 1, 4),
    ]  # fmt: skip
    assert profile.ips.tolist() == [(0x10, 4, 2), (0x12, 4, 1)]
    assert profile.branches().tolist() == [(0x14, 4, 1, 2, 1), (0x30, 4, 2, 3, 1)]


def test_runs_are_the_sum_over_origins():
    records = [stacks([[(0x14, 0x40, HIT), (origin, 0x10, HIT)]]) for origin in (0x30, 0x32, 0x30)]
    profile = collect(records)
    assert profile.traces[["origin", "count"]].tolist() == [(0x30, 2), (0x32, 1)]
    assert profile.runs.tolist() == [(0x10, 0x14, 0, 3, 0, 21, 3, 0)]


def test_empty_entries_are_no_branches_and_end_a_run():
    records = [stacks([[(0x14, 0x40, HIT), (0, 0, 0), (0x30, 0x10, HIT), (0, 0, 0)]])]
    profile = collect(records)
    assert profile.edges["first"].tolist() == [0x14, 0x30] and profile.entries == 2
    assert len(profile.traces) == profile.broken == 0


def test_branches_that_were_not_taken_lie_within_a_run():
    through = entry_flags(predicted=True, cycles=3, not_taken=True)
    stack = [(0x28, 0x40, HIT), (0x20, 0x22, through), (0x18, 0x1A, through), (0x30, 0x10, HIT)]
    profile = collect([stacks([stack])])
    assert profile.edges[["first", "last"]].tolist() == [(0x28, 0x40), (0x30, 0x10)]
    assert profile.traces.tolist() == [(0x10, 0x28, 0x30, 1, 0, 13, 1, 0)]
    assert (profile.entries, profile.not_taken, profile.broken) == (2, 2, 0)


def test_nothing_gives_nothing():
    profile = collect([])
    assert profile.samples == 0
    assert len(profile.edges) == len(profile.branches()) == len(profile.runs) == 0
    assert profile.functions() == []


@pytest.fixture(scope="module")
def image():
    return ElfImage(LIBRARY)


def test_functions_are_found_by_address(image):
    start, size = image.functions()["PyInit__entries"]
    assert image.function_at(start) == ("PyInit__entries", 0)
    assert image.function_at(start + size - 1) == ("PyInit__entries", size - 1)
    assert image.function_at(0) is None


def mapped_library(image, base=0x7F00_0000_0000, pid=9):
    """MMAP2 records that map `image` at `base`."""
    return [Mmap(pid, pid, base + vaddr, size, offset, LIBRARY, build_id=image.build_id)
            for offset, size, vaddr, _ in image.segments]  # fmt: skip


def test_functions_collect_what_lies_in_them(image):
    base = 0x7F00_0000_0000
    start, size = image.functions()["PyInit__entries"]
    entry, inside = base + start, base + start + size - 1
    records = [
        *mapped_library(image),
        stacks([[(inside, entry, MISSED), (0x10, entry, HIT)]], pid=9, ip=inside),
    ]
    profile = collect(records)
    table = {f.function: f for f in profile.functions()}
    found = table["PyInit__entries"]
    assert (found.samples, found.branches, found.mispredicted) == (1, 1, 1)
    assert (found.entered, found.cycles) == (2, 5)
    assert table[""].branches == 1 and table[""].path == ""
    assert str(profile.symbols.place(9, entry)) == (
        f"PyInit__entries ({os.path.basename(LIBRARY)})"
    )
    linked = link_profile(profile, LIBRARY)
    assert linked.edges == {(OUTSIDE, start): (1, 0), (start + size - 1, start): (1, 1)}
    assert linked.runs == {(start, start + size - 1): (1, 1)}
    assert linked.ips == {start + size - 1: 1}


def linked_with(tmp_path, name, mapped, build_id):
    """Counts for a copy of the library, whose recording names `mapped`."""
    image = ElfImage(LIBRARY)
    copy = tmp_path / name
    if not copy.exists():
        copy.write_bytes(Path(LIBRARY).read_bytes())
    records = [
        Mmap(9, 9, 0x7F00_0000_0000 + vaddr, size, offset, path, build_id=build_id)
        for path in mapped for offset, size, vaddr, _ in image.segments
    ]
    start, _ = image.functions()["PyInit__entries"]
    start += 0x7F00_0000_0000
    return link_profile(collect([*records, stacks([[(start + 4, start, HIT)]], pid=9)]), copy)


@pytest.mark.parametrize("mapped, known", [
    (["/elsewhere/other.so"], True), (["/elsewhere/x.so"], False), (["/elsewhere/x.so"], True),
])  # fmt: skip
def test_a_binary_is_found_by_build_id_or_by_its_name(tmp_path, image, mapped, known):
    if known and not image.build_id:
        pytest.skip("the compiler writes no build-id")
    linked = linked_with(tmp_path, "x.so", mapped, image.build_id if known else b"")
    assert sum(count for count, _ in linked.edges.values()) == linked.branches == 1


@pytest.mark.parametrize("mapped, build_id, message", [
    (["/elsewhere/other.so"], b"", r"nor with its build-id .*; the samples are in /elsewhere/oth"),
    (["/elsewhere/x.so"], bytes(20), r"what was recorded under that name has 00000000"),
    ([], b"", "the recording has no mappings"),
])  # fmt: skip
def test_a_binary_that_was_not_recorded_is_an_error(tmp_path, image, mapped, build_id, message):
    if build_id and not image.build_id:
        pytest.skip("the compiler writes no build-id")
    with pytest.raises(TraceError, match=message):
        linked_with(tmp_path, "x.so", mapped, build_id)


def test_what_cannot_be_named_is_said_once(tmp_path, image):
    text = tmp_path / "text"
    text.write_text("no program")
    spaces = AddressSpaces()
    spaces.add(Mmap(1, 1, 0x1000, 0x1000, 0, "/no/such/file"))
    spaces.add(Mmap(1, 1, 0x2000, 0x1000, 0, str(text)))
    spaces.add(Mmap(1, 1, 0x3000, 0x1000, 0, LIBRARY, build_id=bytes(20)))
    spaces.add(Mmap(1, 1, 0x4000, 0x1000, 0, "[vdso]"))
    symbols = Symbols(spaces)
    assert symbols.place(1, 0x1004) == symbols.place(1, 0x1004) == Place("/no/such/file", 4)
    assert symbols.place(1, 0x2004) == Place(str(text), 4)
    assert symbols.place(1, 0x4004) == Place("[vdso]", 0x4004)
    assert str(symbols.place(1, 0x4004)) == "0x4004 ([vdso])"
    assert symbols.place(1, 0x9000) == Place(address=0x9000)
    assert len(symbols.problems) == 2 and "not a sound ELF file" in symbols.problems[1]
    if image.build_id:
        symbols.place(1, 0x3004)
        assert "not the build that was recorded" in symbols.problems[2]


def test_a_stripped_file_is_named_by_its_debug_file(tmp_path, monkeypatch):
    """A library without .symtab, and a debug file that has one: the same library's."""
    image = ElfImage(LIBRARY)
    if not image.build_id:
        pytest.skip("the compiler writes no build-id")
    whole, stripped = Path(LIBRARY).read_bytes(), tmp_path / "stripped.so"
    data = bytearray(whole)
    with open(LIBRARY, "rb") as file:
        elf = ELFFile(file)
        for index in range(elf.num_sections()):
            at = elf["e_shoff"] + index * elf["e_shentsize"] + 4
            if data[at] == 2:  # SHT_SYMTAB
                data[at] = 1  # SHT_PROGBITS
    stripped.write_bytes(data)
    only_dynamic = ElfImage(stripped).functions()
    name = image.build_id.hex()
    (tmp_path / name[:2]).mkdir()
    (tmp_path / name[:2] / f"{name[2:]}.debug").write_bytes(whole)
    monkeypatch.setattr("pylbr.files.elf.DEBUG_FILES", str(tmp_path))
    assert ElfImage(stripped).functions() == image.functions()
    assert set(only_dynamic) < set(image.functions())


@given(st.data())
def test_a_damaged_file_is_refused_or_harmless(tmp_path_factory, data):
    whole = Path(LIBRARY).read_bytes()
    with open(LIBRARY, "rb") as file:
        headers = ELFFile(file)["e_shoff"]
    # Damage where it matters: the file's head, the section headers, the symbols.
    spans = [(0, 0x400), (headers, len(whole)), (0, len(whole))]
    changed = bytearray(whole[: data.draw(st.sampled_from([len(whole), headers, 100, 0]))])
    for _ in range(data.draw(st.integers(0, 4))):
        first, last = data.draw(st.sampled_from(spans))
        at = data.draw(st.integers(first, last - 1))
        if at < len(changed):
            changed[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1]))
    path = tmp_path_factory.mktemp("damaged") / "x.so"
    path.write_bytes(changed)
    try:
        image = ElfImage(path)
    except ValueError as error:
        assert str(path) in str(error)
        return
    for address in (0, 0x1000, 2**63, 2**64 - 1):
        image.function_at(address)
        image.link_address(address)
        image.in_plt(address)
    image.functions()
