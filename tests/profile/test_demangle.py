import pytest

from pylbr.profile.demangle import demangled


@pytest.mark.parametrize("name, plain", [
    ("_ZN4shop4CartIlE3addEll", "shop::Cart<long>::add(long, long)"),
    ("_Znwm@plt", "operator new(unsigned long)@plt"),
    ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
    ("_RNvCskwGfYPst2Cb_3foo16example_function", "foo::example_function"),
    ("main", "main"), ("_Zbad", "_Zbad"), ("_start", "_start"), ("", ""), ("f@plt", "f@plt"),
    ("memcpy@@GLIBC_2.14", "memcpy@@GLIBC_2.14"),
])  # fmt: skip
def test_names_are_those_of_the_source(name, plain):
    assert demangled(name) == plain


@pytest.mark.parametrize("name", [
    "_Z1f" + "F" * 1_000_000 + "v", "_Z1f" + "1aI" * 1_000_000,
    "_Z1f1aIiiE" + "".join(f"S_IS{i}_S{i}_E" for i in range(36)),
    "_Z1f" + "N" * 4000,
])  # fmt: skip
def test_hostile_names_stay_as_they_are(name):
    assert demangled(name) == name


def test_an_expansion_is_bounded():
    """As many references as are followed: they double what they stand for."""
    name = "_Z1f1aIiiE" + "".join(f"S_IS{i}_S{i}_E" for i in "0123456789AB")
    assert len(demangled(name)) <= 4096
