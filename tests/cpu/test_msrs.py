"""Every register of every model, in the style of KVM's msrs_test: generated from the rows."""

from dataclasses import replace

import pytest

from pylbr.arch import FEATURE_SETS, MODELS, REGISTERS, Access, FieldKind, registers
from pylbr.cpu import Processor
from pylbr.errors import ConfigurationError, GeneralProtection

NAMED = {**MODELS, **FEATURE_SETS}
CASES = [
    pytest.param(model, register, id=f"{model.name}-{register.name}")
    for model in NAMED.values()
    for register in registers(model).values()
    if register.n in (0, 1, model.lbr.max_depth - 1)
]
#: Homes whose registers do not hold whatever their writable bits are set to.
ODD = {"lbr.depth", "constant", "capabilities", "global.reset", "global.set", "global.inuse",
       "global.status", "amd.config"}
ALL_ONES = (1 << 64) - 1


@pytest.mark.parametrize("model, register", CASES)
def test_reset_value(model, register):
    cpu = Processor(model)
    assert cpu.rdmsr(register.index) == register.reset
    assert cpu.rdmsr(register.index, host=True) == register.reset


@pytest.mark.parametrize("model, register", CASES)
def test_every_reserved_bit_alone_faults(model, register):
    cpu = Processor(model)
    before = cpu.rdmsr(register.index)
    for bit in range(64):
        if register.reserved_bits >> bit & 1:
            for host in (False, True):
                with pytest.raises(GeneralProtection) as error:
                    cpu.wrmsr(register.index, 1 << bit, host=host)
                if host or register.row.access is not Access.RO:
                    assert error.value.bits == 1 << bit
                assert error.value.register == register.name
    for value in (1 << 64, -1):
        with pytest.raises(GeneralProtection):
            cpu.wrmsr(register.index, value)
    assert cpu.rdmsr(register.index) == before


def _samples(register, model):
    """Values of all writable bits, of each alone, and 0; canonical where they must be."""
    if register.row.accessor == "canonical" and model.linear_width == 32:
        return [0, 0xFFFFF000]
    mask = register.writable & ~register.free
    if register.row.accessor == "canonical":
        return [0, 0x7F0012345678 & mask, 0xFFFFFFFF81000000 & mask]
    if register.row.accessor in ("lbr.from", "lbr.to", "ler.from", "ler.to"):
        return [0, 0x7F0012345678, 0xFFFFFFFF81000000]
    return [mask, 0, *(1 << bit for bit in range(64) if mask >> bit & 1)]


@pytest.mark.parametrize("model, register", [
    case for case in CASES
    if case.values[1].row.accessor not in ODD and case.values[1].row.access is Access.RW
])
def test_write_and_read_back(model, register):
    if register.row.accessor == "evtsel":
        mask = register.writable & ~(1 << 33) & ~(1 << 35)
        values = [mask, 0, 0x4300C4]
    elif register.row.accessor == "pmc":
        values = [0x7FFFFFFF, 0, 0x80000000]
    elif (model.legacy and register.row.accessor in ("lbr.from", "lbr.to")
          and model.linear_width == 32):
        values = [0x8048000]
    elif model.legacy and model.legacy.format in (3, 4) and register.row.accessor == "lbr.from":
        values = [0, 0x7F0012345678, 1 << 63 | 0x401000]
    elif model.legacy and model.legacy.format == 6:
        values = [v & 0x7FFFFFFFFFFF for v in _samples(register, model)]
    else:
        values = _samples(register, model)
    cpu = Processor(model)
    for value in values:
        cpu.wrmsr(register.index, value)
        expected = value
        if register.row.accessor == "pmc" and value >> 31:
            expected |= (1 << model.pmu.counter_width) - (1 << 32)
        assert cpu.rdmsr(register.index) == expected
        assert cpu.rdmsr(register.index) == expected, "a read changes nothing"


@pytest.mark.parametrize("model, register", [
    case for case in CASES if case.values[1].row.access is Access.RO
])
def test_read_only_registers_refuse_the_guest(model, register):
    cpu = Processor(model)
    for value in (0, register.reset):
        with pytest.raises(GeneralProtection, match="read-only"):
            cpu.wrmsr(register.index, value)
    cpu.wrmsr(register.index, register.reset, host=True)
    assert cpu.rdmsr(register.index) == register.reset


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_absent_registers_fault(model):
    cpu = Processor(model)
    present = registers(model)
    others = {i for other in MODELS.values() for i in registers(other)} - set(present)
    for index in sorted(others):
        with pytest.raises(GeneralProtection, match="no such register"):
            cpu.rdmsr(index)
        with pytest.raises(GeneralProtection, match="no such register"):
            cpu.wrmsr(index, 0)
        assert cpu.rdmsr(index, host=True) == 0
        cpu.wrmsr(index, 0, host=True)
        with pytest.raises(GeneralProtection):
            cpu.wrmsr(index, 1, host=True)
    for index in (0x0, 0xDEADBEEF, 0xFFFFFFFF):
        for host in (False, True):
            with pytest.raises(GeneralProtection):
                cpu.rdmsr(index, host=host)


@pytest.mark.parametrize("model", NAMED.values(), ids=list(NAMED))
def test_two_processors_interleaved(model):
    """A write to one is never seen on the other."""
    one, two = Processor(model), Processor(model)
    for index, register in registers(model).items():
        if register.row.accessor in ODD or register.row.access is not Access.RW:
            continue
        value = register.writable & 0x401000 or register.writable & -register.writable
        one.wrmsr(index, value)
        assert two.rdmsr(index) == register.reset, register.name
        two.wrmsr(index, 0)
        assert one.rdmsr(index) == value, register.name
        one.wrmsr(index, 0)


def test_every_row_is_on_some_model_and_says_where_it_is_from():
    for row in REGISTERS:
        assert any(row.count(model) for model in NAMED.values()), row.name
        assert row.source and row.fields
        for field in row.fields:
            assert 63 >= field.hi >= field.lo >= 0 and isinstance(field.kind, FieldKind)


@pytest.mark.parametrize("model, register", CASES)
def test_fields_of_a_register_do_not_overlap(model, register):
    seen = 0
    for field in register.row.fields:
        if field.offered(model):
            assert not seen & field.mask, field.name
            seen |= field.mask
    assert register.reset & ~seen & ALL_ONES == 0


def test_a_processor_that_cannot_exist_is_not_made():
    wrong = replace(MODELS["sapphire-rapids"], name="odd", pdcm=False)
    with pytest.raises(ConfigurationError, match="odd: architectural LBRs come with"):
        Processor(wrong)
