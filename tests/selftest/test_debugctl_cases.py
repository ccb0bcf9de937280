"""The selftests of a guest's IA32_DEBUGCTL pass on the rules of 2025, and on no others."""

import pytest

from pylbr.cli import main
from pylbr.errors import GeneralProtection
from pylbr.kvm.debugctl import GuestDebugctl
from pylbr.selftest.debugctl_cases import debugctl_cases
from tests.manual import IA32_DEBUGCTL


def outcomes():
    return [case.run()[0] for case in debugctl_cases()]


def test_the_command_runs_them(capsys):
    assert main(["selftest", "--group", "msrs"]) == 0
    out = capsys.readouterr().out
    for case in debugctl_cases():
        assert f" {case.name}\n" in out


def refuse_rtm(self, value):
    if value & 1 << 15:
        raise GeneralProtection("IA32_DEBUGCTL", IA32_DEBUGCTL, value, 1 << 15, "as before 2025")
    return value & self.supported


@pytest.mark.parametrize(("method", "otherwise", "passed"), [
    ("write", lambda self, value: value & self.supported, [False, True, False]),
    ("write", refuse_rtm, [False, True, False]),
    ("field", lambda self, value, host: value, [True, False, True]),
    ("read", lambda self, field: field, [True, False, True]),
    ("vmcs12", lambda self, value: self.write(value), [True, True, False]),
])
def test_kvm_before_the_rules_fails(method, otherwise, passed, monkeypatch):
    assert outcomes() == [True, True, True]
    monkeypatch.setattr(GuestDebugctl, method, otherwise)
    assert outcomes() == passed
