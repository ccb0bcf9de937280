"""AMD's models by the command, as the table of public bugs names them."""

import json

import pytest

from pylbr.cli import main
from pylbr.verify import bugs, plain_models, svm, svm_stack


def searched(capsys, *words):
    status = main(["verify", *words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_kvm_with_every_fix_holds_and_one_as_it_is_does_not(capsys):
    status, (fixed, stack) = searched(capsys, "svm", "svm-stack")
    assert status == 0 and not fixed["broken"] and set(stack["broken"]) == {"P4", "P21"}
    assert fixed["states"] == svm.search().states and fixed["complete"]


def test_sev_es(capsys):
    assert searched(capsys, "svm", "--features", "sev-es")[0] == 0
    status, (told,) = searched(capsys, "svm", "--features", "sev-es", "--flaw", "without-sev-es")
    assert status == 1 and told["broken"]["P5"] and told["configuration"]["features"] == ["sev-es"]


def test_what_a_kvm_that_offers_the_stack_has_to_do(capsys):
    """`test_svm_stack` leaves each out."""
    status, (told,) = searched(capsys, "svm-stack-offered", "--flaw", "without-enable")
    assert status == 1 and told["broken"]
    assert plain_models.MODELS["svm-stack-offered"].flaws.keys() == {
        f"without-{fix}" for fix in svm_stack.FIXES}


@pytest.mark.parametrize("bug", [bug for bug in bugs.BUGS if bug.policy.startswith("svm")
                                 and bug.ground.keys() <= {"sev_es"}], ids=lambda bug: bug.what)
def test_the_story_of_the_table_is_one_that_the_command_plays(bug, capsys):
    words = ["verify", bug.policy, *(f"--flaw={flaw}" for flaw in bug.flaws)]
    if bug.ground.get("sev_es"):
        words.append("--features=sev-es")
    status = main([*words, "--story", "; ".join(bugs.catch(bug).words)])
    out = capsys.readouterr().out
    assert f"# => {bug.property} broken: " in out
    assert status == int(plain_models.MODELS[bug.policy].holds)


def test_tables_of_two_kinds_have_a_legend_each(capsys):
    assert main(["verify", "tdx", "svm-stack"]) == 0
    out = capsys.readouterr().out
    rows = [[word.strip() for word in line.split("|")[1:-1]] for line in out.splitlines()]
    assert ["P5", "-", "not seen"] in rows and ["DEPTH", "holds", "-"] in rows
    assert "\ntdx\nP1 " in out and "\nsvm-stack\nP1 " in out
