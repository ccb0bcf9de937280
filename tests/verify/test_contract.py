"""Every clause of the contract has a test that exists, and its diagrams are the models'."""

import re
from pathlib import Path

from pylbr.verify.ownership import handovers, mermaid, ownership_configuration

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "contract.md").read_text()
CLAUSES = re.split(r"^\*\*C(\d+)\*\*", TEXT, flags=re.M)[1:]
DRAWN = ("kvm-legacy-designed", "request", "mediated", "mediated-merged", "lease")


def test_clauses_are_numbered():
    numbers = [int(n) for n in CLAUSES[::2]]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 20


def test_no_clause_is_without_a_test():
    for number, text in zip(CLAUSES[::2], CLAUSES[1::2], strict=True):
        paragraph = text.split("\n\n")[0]
        proofs = re.findall(r"(tests/\S+\.py)::(\w+)", paragraph)
        assert proofs, f"C{number} names no test"
        for path, function in proofs:
            source = (ROOT / path).read_text()
            assert f"\ndef {function}(" in source, f"C{number}: {path} has no {function}"


def test_references_to_clauses_exist():
    highest = int(CLAUSES[-2])
    assert all(1 <= int(n) <= highest for n in re.findall(r"\bC(\d+)\b", TEXT))


def test_diagrams_are_those_of_the_models():
    for policy in DRAWN:
        assert mermaid(handovers(ownership_configuration(policy))) in TEXT, policy
