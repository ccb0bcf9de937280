"""``help()`` and ``inspect.signature`` work on every public compiled class and function."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import lbrcore
import pylbr
from pylbr.arbitration import Policy
from pylbr.arbitration.plain import HOOKS, PlainPolicy


def compiled(package):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if any(part.startswith("_") for part in module.name.split(".")):
            continue
        spec = module.module_finder.find_spec(module.name)
        if spec.origin and spec.origin.endswith(".so"):
            yield module.name


MODULES = [*compiled(lbrcore), *compiled(pylbr)]


def public(owner, home):
    """Name and member of all that `owner` defines itself, inherited members left out."""
    for name, member in vars(owner).items():
        if name.startswith("_") or getattr(member, "__module__", home) != home:
            continue
        if not inspect.ismodule(member):
            yield name, member


def undocumented(where, member, attributes=""):
    """What `help` would not show of one member; one may be listed in the prose of its class."""
    if isinstance(member, (staticmethod, classmethod)):
        member = member.__func__
    listed = re.search(rf"^(\w+, )*{where[-1]}(, \w+)* : ", attributes, re.M)
    if not inspect.getdoc(member) and not listed:
        yield f"{'.'.join(where)}: no prose"
    if callable(member):
        try:
            inspect.signature(member)
        except ValueError:
            yield f"{'.'.join(where)}: no signature"


@pytest.mark.parametrize("name", MODULES)
def test_help_shows_prose_and_signature(name):
    module = importlib.import_module(name)
    wrong = [] if module.__doc__ else [f"{name}: no prose"]
    for key, member in public(module, name):
        if not callable(member):
            continue
        wrong += undocumented((name, key), member)
        if inspect.isclass(member):
            prose = inspect.getdoc(member) or ""
            for inner, part in public(member, name):
                wrong += undocumented((name, key, inner), part, prose)
    assert not wrong


def test_the_core_is_among_them():
    assert {"lbrcore.lbr", "lbrcore.replay", "pylbr.x86.blocks"} <= set(MODULES)


def test_help_of_a_policy_lists_every_hook():
    source = Path(pylbr.__file__).with_name("arbitration") / "microsteps.pxd"
    compiled_hooks = re.findall(r"^    cdef (?:void|int|bint) (\w+)\(", source.read_text(), re.M)
    hooks = "\n".join(inspect.getdoc(Policy).split("Hooks\n-----\n")[1:])
    for name in {*compiled_hooks, *HOOKS} - {"fail"}:
        assert re.search(rf"^(\w+, )*{name}(, \w+)*$", hooks, re.M), name
    for name, takes in HOOKS.items():
        assert f"\n{name}({takes})\n" in inspect.getdoc(PlainPolicy)
