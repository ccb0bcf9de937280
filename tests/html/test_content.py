"""The page's data: complete, bounded, and harmless whatever names it contains."""

import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pylbr
from lbrcore import BRANCH_DTYPE, BranchClass
from pylbr.cli import main
from pylbr.files.elf import ElfImage
from pylbr.html import content as contents
from pylbr.html.flame import FlameTree
from pylbr.html.page import page
from pylbr.html.timelines import read_timeline
from pylbr.profile.call_stacks import DEEPEST, stacks_of_trace
from pylbr.profile.symbols import Place
from pylbr.trace import Metadata, Part, StreamTrace, Writer
from tests.profile.walked import mapped

HERE = Path(pylbr.__file__).parent / "html"
LIBRARIES = HERE / "libraries"


def data_of(path):
    """The data in a page."""
    (found,) = re.findall(r'<script type="application/json" id="profile">(.*?)</script>',
                          path.read_text(), re.S)
    return json.loads(found)


class _Names:
    """Symbols that name an address by its number."""

    def place(self, space, address):
        return Place("/lib", address, f"f{address}", 0)


@given(st.dictionaries(st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple),
                       st.integers(1, 50)), st.integers(1, 3))
def test_the_tree_adds_up_as_by_hand(stacks, weight):
    tree = FlameTree("samples")
    tree.add(Counter({(7, *stack): count for stack, count in stacks.items()}), _Names(), weight)
    plain = Counter()
    for stack, count in stacks.items():
        for depth in range(len(stack) + 1):
            plain[tuple(f"f{a}" for a in stack[:depth])] += count * weight
    nodes = tree.nodes()
    ways = []
    for parent, name, _, _ in nodes:
        ways.append((*ways[parent], name) if parent >= 0 else ())
    assert all(parent < at for at, (parent, *_) in enumerate(nodes))
    assert {way: count for way, (*_, count) in zip(ways, nodes, strict=True)} == (plain or {(): 0})


def test_endless_recursion_ends(tmp_path):
    table = np.zeros(5000, BRANCH_DTYPE)
    table["from"], table["to"], table["class"] = 0x1008, 0x1000, BranchClass.NEAR_REL_CALL
    source = StreamTrace("deep", Metadata(), BRANCH_DTYPE.names, lambda: iter([Part(table)]))
    tasks, _, total = stacks_of_trace(source, lambda _: None)
    assert total == sum(tasks[0].values()) == 5000
    assert max(map(len, tasks[0])) == DEEPEST + 1 == 1 + len(tasks[0])


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Branches between all functions of all compiled modules."""
    spans, modules = [], []
    for number, path in enumerate(sorted(HERE.parent.rglob("*.so"))):
        image, base = ElfImage(path), number + 1 << 32
        modules += mapped(image, path, base)
        spans += [(base + start, size) for start, size in image.functions().values() if size > 64]
    assert len(spans) > 1500
    random = np.random.default_rng(1)
    table = np.zeros(10_000, BRANCH_DTYPE)
    at = random.integers(0, len(spans), len(table) + 1)
    starts = np.array([start for start, _ in spans], "u8")[at]
    sizes = np.array([size for _, size in spans], "u8")[at]
    table["to"], table["class"] = starts[1:], BranchClass.NEAR_REL_CALL
    table["from"] = starts[:-1] + random.integers(0, 1 << 60, len(table)).astype("u8") % sizes[:-1]
    path = tmp_path_factory.mktemp("large") / "x.arrow"
    with Writer(path, Metadata(modules=tuple(modules))) as writer:
        writer.write(table)
    return path


def test_a_large_profile_is_a_small_page(large, tmp_path):
    out = tmp_path / "x.html"
    assert main(["report", str(large), "--html", str(out)]) == 0
    data = data_of(out)
    assert 500_000 < out.stat().st_size < 5_000_000 and len(data["codes"]) > 20
    number = len(data["codes"])
    assert any(note.startswith(f"the code of the {number} hottest of ") for note in data["notes"])
    assert data["allFunctions"] > 1500 and sum(row[3] for row in data["functions"]) <= 10_000


def test_less_room_is_less_code(large, monkeypatch):
    monkeypatch.setattr(contents, "_LARGEST_CODE", 20_000)
    monkeypatch.setattr(contents, "_CODES", 30)
    less = contents.profile_content(pylbr.profile_of(large), None)
    assert 0 < len(less["codes"]) < 20 and len(less["functions"]) > 1500


@pytest.mark.parametrize("name", ["</script><script>owned=1</script>", "<!--<script>", "&lt;",
                                  "{scripts}", "\u2028\u202e\x00\x1b[31m", "\udc80", '"onload="x'])
def test_no_name_ends_the_data(name):
    text = page({**contents.empty_content(contents.Texts().shown(name)), "texts": [name]})
    whole = re.findall(r"<script[^>]*>(.*?)</script>", text, re.S)
    assert len(whole) == 3 and json.loads(whole[0])["texts"] == [name]
    head = text[:text.index("<script type")]
    assert "<script" not in head.split("<title>")[1] and text.count("</title>") == 1
    assert not set("\x00\x1b\u202e\u2028") & set(head)


def test_the_scripts_are_those_that_the_policy_allows():
    import base64

    text = page(contents.empty_content("x"))
    _, *scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.S)
    hashes = re.findall(r"'sha256-([^']+)'", text)
    assert [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()
            for one in scripts] == hashes
    assert "default-src 'none'" in text and "unsafe-eval" not in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text.replace("\\", "")[:3000])


def test_the_libraries_are_those_that_were_bundled():
    for line in (LIBRARIES / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((LIBRARIES / name).read_bytes()).hexdigest() == digest
    lock = json.loads((LIBRARIES / "package-lock.json").read_text())["packages"]
    licences = (LIBRARIES / "LICENSES.txt").read_text()
    used = {path.rpartition("node_modules/")[2]: found for path, found in lock.items()
            if path and not found.get("dev")}
    assert len(used) > 15
    for name, found in used.items():
        assert f"{name} {found['version']}" in licences and found["integrity"]
        assert found["license"] in ("MIT", "ISC", "Apache-2.0", "BSD-3-Clause")
        assert "resolved" not in found


@pytest.mark.peer
def test_the_scripts_parse():
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    for script in sorted((HERE / "page").glob("*.js")):
        subprocess.run([node, "--check", str(script)], check=True)


@pytest.mark.parametrize("content, message", [
    (b"", "is no timeline"), (b"[" * 100_000, "is no timeline"), (b"{}", "is no timeline"),
    (b'{"traceEvents": [{"ph": "X", "name": "a", "pid": 0, "ts": "soon", "dur": 1}]}', "is no"),
    (b'{"traceEvents": [{"ph": "X", "name": "a", "pid": 0, "ts": 1e999, "dur": 1}]}', "is no"),
    (b'{"traceEvents": []}', "no spans"),
])
def test_what_is_no_timeline_is_refused(content, message, tmp_path, capsys):
    path = tmp_path / "x.trace.json"
    path.write_bytes(content)
    out = tmp_path / "x.html"
    assert main(["report", "--timeline", str(path), "--html", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not out.exists()


def test_a_timeline_alone_is_a_page(tmp_path):
    path = tmp_path / "x.trace.json"
    path.write_text(json.dumps({"traceEvents": [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": 1, "args": {"name": "owner"}},
        {"ph": "X", "name": "host", "pid": 0, "tid": 1, "ts": 0, "dur": 3},
        {"ph": "i", "name": "broken: x", "pid": 0, "tid": 1, "ts": 2}]}))
    assert main(["report", "--timeline", str(path), "--html", str(tmp_path / "x.html")]) == 0
    (found,) = data_of(tmp_path / "x.html")["timelines"]
    assert found == read_timeline(str(path), 0)
    assert (found["spans"], found["end"]) == ([[0, "host", 0, 3, ""]], 3)
    assert found["lanes"] == [{"name": "owner", "states": True}]


def test_mistakes_are_one_line(tmp_path, capsys):
    trace = str(Path(pylbr.__file__).parents[1] / "examples" / "gzip.parquet")
    for words, message in (
        (["--html", "x.html", "--by", "edges", trace], "the page has every view"),
        (["--timeline", "x.json", trace], "--timeline belongs to --html"),
        (["--timeline", str(tmp_path / "no"), "--html", "x.html"], "No such file"),
    ):
        assert main(["report", *words]) == 2
        captured = capsys.readouterr()
        assert message in captured.err and captured.err.count("\n") == 1 and not captured.out
