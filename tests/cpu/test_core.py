"""Threads of one core: what they share, and what stays each thread's own."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylbr.arch import MODELS, Access, architectural, registers
from pylbr.cpu import Core, CoreState, Processor, decode, decode_core, encode, encode_core
from pylbr.cpu.saved.codec import headed
from pylbr.errors import ConfigurationError, StateError
from tests.cpu import twin
from tests.cpu.helpers import Listener, some_branches
from tests.cpu.test_msrs import ODD
from tests.manual import IA32_DEBUGCTL, MSR_LASTBRANCH_TOS, MSR_LBR_SELECT

SELECT, DEBUGCTL = MSR_LBR_SELECT, IA32_DEBUGCTL
PER_CORE = ["nehalem", "westmere", "silvermont", "airmont", "goldmont", "goldmont-plus",
            "tremont"]


def test_which_models_share_it():
    assert [name for name, m in MODELS.items()
            if m.legacy and m.legacy.select_scope == "core"] == PER_CORE


@pytest.mark.parametrize("name", MODELS)
def test_every_register_is_shared_if_its_row_says_so(name):
    core = Core(name)
    one, two = core.threads
    for index, register in registers(core.model).items():
        if register.row.accessor in ODD or register.row.access is not Access.RW:
            continue
        value = register.writable & 0x401000 or register.writable & -register.writable
        one.wrmsr(index, value)
        shared = register.row.per_core(core.model)
        assert shared == (index == SELECT and name in PER_CORE)
        assert two.rdmsr(index) == (value if shared else register.reset), register.name
        two.wrmsr(index, 0)
        assert one.rdmsr(index) == (0 if shared else value), register.name
        one.wrmsr(index, 0)


def test_a_filter_of_one_thread_filters_the_branches_of_both():
    core = Core("nehalem", (Listener(), Listener(), Listener()))
    for thread in core.threads:
        thread.wrmsr(DEBUGCTL, 1)
    core.threads[1].wrmsr(SELECT, 1 << 2)  # JCC
    for n, thread in enumerate(core.threads):
        thread.branch(0, 0x10, 0x20)
        assert thread.rdmsr(MSR_LASTBRANCH_TOS) == 0
        thread.branch(2, 0x1000 + n, 0x20)
        assert thread.rdmsr(0x681) == 0x1000 + n, "records are each thread's own"


@st.composite
def operations(draw):
    return draw(st.lists(st.tuples(
        st.integers(0, 1),
        st.sampled_from(["select", "debugctl", "branches", "warm", "cold", "smm", "save", "copy"]),
        st.integers(0, 0x1FF)), max_size=25))


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(["nehalem", "haswell"]), operations())
def test_as_two_twins_with_one_register(name, steps):
    core = Core(name)
    facts = twin.MODELS[name]
    twins = twin.Twin(facts), twin.Twin(facts)
    for each in (*core.threads, *twins):
        each.wrmsr(DEBUGCTL, 1)
    for n, what, value in steps:
        if what == "select":
            core.threads[n].wrmsr(SELECT, value)
            for other in twins if name == "nehalem" else (twins[n],):
                other.wrmsr(SELECT, value)
        elif what == "debugctl":
            core.threads[n].wrmsr(DEBUGCTL, value & 1)
            twins[n].wrmsr(DEBUGCTL, value & 1)
        elif what == "branches":
            batch = some_branches(value % 40 + 1, seed=value, cpl=value % 2 * 3)
            core.threads[n].record(batch)
            for b in batch:
                twins[n].retire(*(int(b[field]) for field in (
                    "class", "from", "to", "flags", "cycles", "instructions", "cpl_from",
                    "cpl_to")), (0, 0, 0, 0))
        elif what in ("warm", "cold"):
            core.threads[n].reset(what)
            twins[n].reset(what)
            if name == "nehalem":
                twins[1 - n].wrmsr(SELECT, 0)
        elif what == "smm":
            core.threads[n].smi()
            core.threads[n].rsm()
            twins[n].smi()
            twins[n].rsm()
        elif what == "save":
            core = Core.from_state(decode_core(encode_core(core.state())))
        else:
            core = core.copy()
        for thread, other in zip(core.threads, twins, strict=True):
            for index in (SELECT, DEBUGCTL, MSR_LASTBRANCH_TOS, *range(0x680, 0x690),
                          *range(0x6C0, 0x6D0)):
                assert thread.rdmsr(index) == other.rdmsr(index), hex(index)


def test_a_reset_of_the_core_resets_all_threads():
    core = Core("nehalem")
    for thread in core.threads:
        thread.wrmsr(DEBUGCTL, 1)
        thread.record(some_branches(20))
    core.threads[0].wrmsr(SELECT, 0x44)
    core.reset("warm")
    assert [(t.rdmsr(SELECT), t.rdmsr(DEBUGCTL)) for t in core.threads] == [(0, 0), (0, 0)]
    assert all(t.records()["from"].any() for t in core.threads)
    core.reset("cold")
    assert core.state() == Core("nehalem").state()


# State

def used(name="nehalem"):
    core = Core(name)
    core.threads[0].wrmsr(SELECT, 0x44)
    for n, thread in enumerate(core.threads):
        thread.wrmsr(DEBUGCTL, 1)
        thread.record(some_branches(30, seed=n))
    return core


def test_states_and_copies_stay_one_core_and_independent():
    core = used()
    state = core.state()
    for back in (Core.from_state(state), Core.from_state(decode_core(encode_core(state))),
                 core.copy()):
        assert back.state() == state
        back.threads[1].wrmsr(SELECT, 1)
        assert back.threads[0].rdmsr(SELECT) == 1 and core.threads[0].rdmsr(SELECT) == 0x44
    alone = core.threads[0].copy()
    alone.wrmsr(SELECT, 2)
    assert [t.rdmsr(SELECT) for t in core.threads] == [0x44, 0x44], "a copy is on no core"
    alone = Processor.from_state(state.threads[1])
    assert alone.rdmsr(SELECT) == 0x44
    heard = Listener(), Listener()
    assert [t.events for t in Core.from_state(state, heard).threads] == list(heard)


def test_threads_that_make_no_core_are_refused():
    state = used().state()
    other = Processor("nehalem").state()
    with pytest.raises(StateError, match="MSR_LBR_SELECT is 0x44 in thread 0 and 0x0 in thread 1"):
        Core.from_state(CoreState((state.threads[0], other)))
    with pytest.raises(StateError, match="unlike models"):
        Core.from_state(CoreState((state.threads[0], Processor("westmere").state())))
    for threads in ((), state.threads * 3):
        with pytest.raises(StateError, match="1 to 4"):
            Core.from_state(CoreState(threads))
    for events in ((), (Listener(),) * 5):
        with pytest.raises(ValueError, match="1 to 4"):
            Core("nehalem", events)
    free = Processor("sandy-bridge").state(), Processor("sandy-bridge")
    free[1].wrmsr(SELECT, 1)
    Core.from_state(CoreState((free[0], free[1].state())))
    with pytest.raises(ConfigurationError, match="thread or core"):
        Core(replace(MODELS["nehalem"], lbr=replace(MODELS["nehalem"].lbr,
                                                    select_scope="package")))


def test_damaged_images_are_refused():
    data = encode_core(used().state())
    image = encode(Processor("nehalem").state())
    for n in range(0, len(data), 7):
        for damaged in (data[:n], data[:n] + bytes([data[n] ^ 0x10]) + data[n + 1:]):
            with pytest.raises(StateError):
                decode_core(damaged)
    with pytest.raises(StateError, match="magic b'PYLBRCPU'"):
        decode_core(image)
    with pytest.raises(StateError, match="magic b'PYLBRCOR'"):
        decode(data)
    for payload, text in ((b"", "1 to 4"), (image * 5, "more than 4 threads"),
                          (image[:-1], "bytes expected"), (image + b"x", "bytes expected")):
        with pytest.raises(StateError, match=text):
            decode_core(headed(b"PYLBRCOR", 1, payload))
    with pytest.raises(StateError, match="version 2"):
        decode_core(headed(b"PYLBRCOR", 2, image))


def test_a_model_of_ones_own_is_given_again():
    own = architectural("own")
    state = Core(own).state()
    assert decode_core(encode_core(state), own) == state
    with pytest.raises(StateError, match="give the model"):
        decode_core(encode_core(state))
