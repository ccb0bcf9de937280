"""The contract as text and its sequence diagrams are what the models and the pages are."""

import re
import runpy
from pathlib import Path

from pylbr.verify import sequence

ROOT = Path(__file__).resolve().parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "contract_text.py"))


def test_the_text_is_that_of_the_pages():
    assert (ROOT / "docs" / "contract.txt").read_text() == TOOL["text"](), (
        "run python tools/contract_text.py docs/contract.txt")


def test_lines_are_short_and_nothing_is_lost():
    text = TOOL["text"]()
    assert not [line for line in text.split("\n") if len(line) > 75 and " " in line.strip()]
    pages = "".join((ROOT / "docs" / name).read_text() for name in TOOL["PAGES"])
    clauses = re.findall(r"^\*\*(C\d+)\*\*", pages, re.M)
    assert len(clauses) > 40 and all(f"\n{clause} " in text for clause in clauses)
    for proof in set(re.findall(r"tests/\S+?::(\w+)", pages)):
        assert proof in text
    assert "**" not in text and "](" not in text


def test_the_diagrams_are_those_of_the_models():
    assert sequence.page() in (ROOT / "docs" / "contract-sequences.md").read_text()


def test_a_diagram_shows_who_acts_and_what_the_registers_hold():
    lines = sequence.page().split("\n")
    rows = [line.split() for line in lines]
    assert ["IPI", "opens", "cpu-exclude", "|", "|", "host:", "-", "-", "on"] in rows
    at = next(i for i, row in enumerate(rows) if row[:3] == ["|", "|", "xsaves"])
    assert rows[at + 1] == ["|", "|", "|", "=>", "guest", "A", "reads", "h0", "-"]


def test_tables_lists_and_diagrams_become_text():
    page = ("# Title\n\nA **bold** `word` and a [link](x.md).\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
            "\n- one\n  more\n- two\n\n```mermaid\nstateDiagram-v2\n    [*] --> a\n"
            "    a --> b: why\n```\n")
    assert TOOL["text_of"](page) == (
        "Title\n=====\n\nA bold word and a link.\n\na  b\n1  2\n\n- one more\n- two\n\n"
        "    a -> b: why\n")
    wide = TOOL["text_of"]("| head | text |\n|---|---|\n| x | " + "word " * 30 + "|\n")
    assert wide.startswith("- x\n    text: word word") and max(map(len, wide.split("\n"))) <= 75
