"""Events and branch filters by the names that perf gives them."""

import pytest

from lbrcore import LbrState
from lbrcore.events import Unit
from pylbr.arch.models import MODELS
from pylbr.cpu.facility import facility
from pylbr.errors import ConfigurationError
from pylbr.perf.branch_filter import parse_filter, program
from pylbr.perf.events import parse_event
from pylbr.sample import SampleSetup
from tests.manual import RECORD_ALL


def test_generic_events_are_those_of_the_processor():
    branches = parse_event("branches:u", 100, table="golden-cove")
    assert (branches.type, branches.config, branches.counted.cpls) == (0, 4, 0b1110)
    assert branches.counted.classes == 0x4FFF  # interrupts, exceptions, aborts do not retire
    misses = parse_event("branch-misses", 100, table="skylake").counted
    assert misses.flags == 0xF0 and misses.cpls == 0b1111
    assert parse_event("cycles:k", 9).counted.unit == Unit.CYCLES
    assert parse_event("cpu-cycles:k", 9).counted.cpls == 1
    assert parse_event("instructions", 9, table="amd").counted.unit == Unit.INSTRUCTIONS


@pytest.mark.parametrize("name", [
    "br_inst_retired.near_taken", "r20c4", "cpu/event=0xc4,umask=0x20/"])
def test_one_event_has_many_names(name):
    event = parse_event(f"{name}:u", 7, table="skylake", skid=5)
    assert (event.type, event.config) == (4, 0x20C4)
    assert event.counted.classes == 0xBF  # all near branches that are taken
    assert event.counted.skid == 5 and event.name == f"{name}:u"


def test_precise_means_no_skid():
    assert parse_event("branches:upp", 7, skid=5).counted.skid == 0


def test_attributes_say_what_is_excluded():
    user, kernel = (parse_event(f"branches:{m}", 7).attributes(9) for m in "uk")
    assert user.flags == 1 << 5 and kernel.flags == 1 << 4
    assert user.period == 7 and user.branch_sample_type == 9


@pytest.mark.parametrize(("text", "period", "message"), [
    ("cache-misses", 7, "not known"), ("branches:x", 7, "modifiers"), ("branches", 0, "period"),
    ("r99", 7, "not known"), ("br_inst_retired.cond", 7, "not known"),
])
def test_an_event_that_is_not_there_is_refused(text, period, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_event(text, period, table="skylake")


@pytest.mark.parametrize(("words", "ctl", "select"), [
    # Linux 6.1: lbr_ctl_map; lbr_sel_map of Haswell, inverted as it is written.
    ("any,u", 0x7F0005, 0x001), ("any,k", 0x7F0003, 0x002), ("any", RECORD_ALL, 0),
    ("any_call,u", 0x580005, 0x0E5), ("any_ret,u", 0x600005, 0x0DD),
    ("ind_call,u", 0x100005, 0x1ED), ("cond,u", 0x010005, 0x1F9), ("ind_jmp,u", 0x040005, 0x1BD),
    ("call,u", 0x080005, 0x1F5), ("stack,u", 0x38000D, 0x3C5),
    ("cond,ind_call,u", 0x110005, 0x1E9),
])
def test_words_set_the_bits_that_linux_sets(words, ctl, select):
    for model, value in (("sapphire-rapids", ctl), ("skylake", select)):
        lbr = facility(MODELS[model])
        program(lbr, parse_filter(words))
        assert lbr.ctl == value and lbr.active, model


@pytest.mark.parametrize(("words", "message"), [
    ("u", "names no branches"), ("any,tx", "not one of"), ("stack,any", "alone"), ("", "not one"),
])
def test_a_filter_that_means_nothing_is_refused(words, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_filter(words)


@pytest.mark.parametrize(("change", "message"), [
    ({"model": "sandy-bridge", "branches": "stack,u"}, "MSR_LBR_SELECT lacks bits 0x200"),
    ({"depth": 12}, "depth 12: sapphire-rapids has"), ({"model": "vax"}, "vax"),
    ({"scope": "thread"}, "scope"), ({"engine": "quick"}, "engine"),
])
def test_a_setup_that_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigurationError, match=message):
        SampleSetup(**change)


def test_freezing_is_off_with_a_call_stack():
    assert SampleSetup(branches="any,u").freeze and not SampleSetup(branches="stack,u").freeze
    assert SampleSetup(branches="stack,u", freeze=True).freeze


def test_depth_is_set():
    lbr = SampleSetup(depth=8).facility()
    assert isinstance(lbr, LbrState) and lbr.depth == 8 and lbr.active


@pytest.mark.parametrize("name", [
    "cpu/event=0xc4,umask=0x20/u", "cpu/umask=0x20,event=0xc4/:u", "cpu/r20c4/u", "r20c4:u"])
def test_modifiers_of_an_event_by_code(name):
    event = parse_event(name, 7, table="skylake")
    assert (event.type, event.config, event.counted.cpls) == (4, 0x20C4, 0b1110)
