"""Models, CPUID and the validator."""

from dataclasses import replace

import pytest

from pylbr.arch import (
    FORMATS,
    MODELS,
    ArchLbr,
    Pmu,
    architectural,
    check,
    cpuid,
    leaves,
    model,
    objections,
    registers,
)
from pylbr.errors import ConfigurationError


@pytest.mark.parametrize("name", MODELS)
def test_every_named_model_can_exist(name):
    assert objections(MODELS[name]) == []
    assert registers(MODELS[name])


def test_architectural_parts_answer_leaf_1c_as_published():
    for name in ("sapphire-rapids", "alder-lake-p", "alder-lake-e"):
        assert cpuid(model(name), 0x1C) == (0x4000000B, 7, 7, 0)
    assert cpuid(model("sierra-forest"), 0x1C) == (0x4000000B, 7, 0xF0007, 0)


def test_sapphire_rapids_signature_and_flags():
    spr = model("sapphire-rapids")
    assert cpuid(spr, 1)[0] == 0x806F8
    assert cpuid(spr, 1)[2] >> 15 & 1, "PDCM"
    assert cpuid(spr, 7)[3] >> 19 & 1, "ARCH_LBR"
    assert cpuid(spr, 0)[1:] == (0x756E6547, 0x6C65746E, 0x49656E69)
    assert cpuid(spr, 0x0A)[0] & 0xFF >= 4
    assert cpuid(spr, 0x80000008)[0] == 57 << 8 | 52


def test_xsave_leaf():
    spr = model("sapphire-rapids")
    assert cpuid(spr, 0x0D, 1)[2] >> 15 & 1, "IA32_XSS[15]"
    assert cpuid(spr, 0x0D, 15) == (808, 0, 1, 0)
    # XSAVE area of {x87, SSE, LBR}: 576 + 808 (SDM vol. 1, 13.4.3).
    assert cpuid(spr, 0x0D, 1, 3, 1 << 15)[1] == 1384
    assert cpuid(spr, 0x0D, 0, 7)[1] == 832
    assert cpuid(spr, 0x0D, 63) == (0, 0, 0, 0)


@pytest.mark.parametrize("depths, size", [((8,), 232), ((8, 16), 424), ((8, 16, 32), 808)])
def test_component_15_is_as_large_as_linux_demands(depths, size):
    assert cpuid(architectural(depths=depths), 0x0D, 15)[0] == size


def test_leaf_1c_is_absent_without_architectural_lbrs():
    for name in ("skylake", "haswell", "zen4"):
        present = {leaf for leaf, _ in leaves(model(name))}
        assert 0x1C not in present
        assert cpuid(model(name), 7)[3] >> 19 & 1 == 0
    # Intel answers a leaf above the highest as the highest one, AMD with 0.
    assert cpuid(model("skylake"), 0x1C) == cpuid(model("skylake"), 0x14)
    assert cpuid(model("haswell"), 0x1C) == cpuid(model("haswell"), 0x0D)
    assert cpuid(model("zen4"), 0x1C) == (0, 0, 0, 0)


@pytest.mark.parametrize("name", MODELS)
def test_leaf_14_enumerates_the_fields_that_rtit_ctl_has(name):
    """SDM vol. 3, 33.3.1: without the flag, setting the field faults."""
    m, flags = MODELS[name], {0: 1 << 7, 1: 1 << 1, 3: 1 << 9, 4: 1 << 12 | 1 << 5, 5: 1 << 4}
    register = registers(m).get(0x570)
    assert (register is not None) == m.pt == bool(cpuid(m, 7)[1] >> 25 & 1)
    if not m.pt:
        assert 0x14 not in {leaf for leaf, _ in leaves(m)} or cpuid(m, 0x14) == (0, 0, 0, 0)
        return
    highest, offered, output, _ = cpuid(m, 0x14)
    assert highest == 1 and output == 0
    for bit, fields in flags.items():
        assert bool(offered >> bit & 1) == (register.writable & fields == fields)
    assert offered == sum(1 << bit for bit in flags)
    values = cpuid(m, 0x14, 1)
    for bits, shift in ((values[0] >> 16, 14), (values[1] & 0xFFFF, 19), (values[1] >> 16, 24)):
        assert bits == 0xFFFF and register.writable >> shift & 15 == 15
    assert values[0] & 7 == 0 and values[2:] == (0, 0)


def test_leaf_23_lists_the_counters_once_more():
    sierra = model("sierra-forest")
    assert cpuid(sierra, 0)[0] == 0x23 and cpuid(sierra, 7)[0] == 1
    assert cpuid(sierra, 7, 1) == (0x100, 0, 0, 0)
    assert cpuid(sierra, 0x23) == (0b1011, 0, 0, 0)
    general, fixed = cpuid(sierra, 0x23, 1)[:2]
    assert general.bit_count() == cpuid(sierra, 0xA)[0] >> 8 & 0xFF == 8
    assert fixed == cpuid(sierra, 0xA)[2] == 7
    assert cpuid(sierra, 0x23, 3) == (0x7F, 0, 0, 0)
    assert cpuid(sierra, 0x20) == cpuid(sierra, 0x23, 2) == (0, 0, 0, 0)
    spr = model("sapphire-rapids")
    assert cpuid(spr, 0)[0] == 0x1C and cpuid(spr, 7, 1) == (0, 0, 0, 0)


def test_zen4_enumerates_its_stack():
    eax, ebx, _, _ = cpuid(model("zen4"), 0x80000022)
    assert eax == 7 and ebx & 15 == 6 and ebx >> 4 & 63 == 16


@pytest.mark.parametrize("name", MODELS)
def test_cpuid_outputs_fit_and_fields_do_not_overlap(name):
    from pylbr.arch import CPUID_FIELDS

    m = MODELS[name]
    seen = {}
    for field in CPUID_FIELDS:
        if not field.offered(m):
            continue
        key = (field.leaf, field.subleaf, field.register)
        mask = ((1 << (field.hi - field.lo + 1)) - 1) << field.lo
        assert not seen.get(key, 0) & mask, (key, field.name)
        seen[key] = seen.get(key, 0) | mask
        assert 0 <= field.value(m, m.xcr0, m.xss) < 1 << (field.hi - field.lo + 1)
    for leaf, sub in leaves(m):
        assert all(0 <= value < 1 << 32 for value in cpuid(m, leaf, sub or 0))


SPR, SKL, HSW = MODELS["sapphire-rapids"], MODELS["skylake"], MODELS["haswell"]


def _lbr(base, **changes):
    return replace(base, lbr=replace(base.lbr, **changes))


def test_hybrid_p_cores_list_fewer_counters_than_they_have():
    """A dump of Alder Lake-S: 6 and 3; Linux adds 2 and 1, whose registers exist."""
    eax, _, ecx, edx = cpuid(MODELS["alder-lake-p"], 0xA)
    assert (eax >> 8 & 0xFF, edx & 31, ecx) == (6, 3, 7)
    assert (MODELS["alder-lake-p"].pmu.counters, MODELS["alder-lake-p"].pmu.fixed) == (8, 4)
    eax, _, ecx, edx = cpuid(SPR, 0xA)
    assert (eax >> 8 & 0xFF, edx & 31, ecx) == (8, 4, 15)


def test_xsave_leaves_of_sapphire_rapids():
    """A dump of the processor, qemu-devel, 2022-03-22."""
    eax, _, ecx, _ = cpuid(SPR, 0xD, 1)
    assert (eax, ecx) == (0x1F, 0xDD00)
    assert cpuid(SPR, 0xD, 0x10) == (0, 0, 0, 0)
    assert cpuid(SPR, 0xD, 0x12)[2] == 6 and cpuid(SPR, 0xD, 0x11)[2] == 2
    assert cpuid(SPR, 0xD, 1, SPR.xcr0, 1 << 15)[1] == 0x2D00
    assert cpuid(SPR, 0xD, 0xF)[2] == 1
    assert cpuid(MODELS["alder-lake-p"], 0xD, 1)[0] == 0xF


@pytest.mark.parametrize("wrong, sentence", [
    (replace(SPR, pmu=replace(SPR.pmu, unlisted_counters=8)), "lists a part"),
    (replace(SPR, pmu=replace(SPR.pmu, unlisted_fixed=5)), "lists a part"),
    (replace(SKL, xfd=True), "component 18"),
    (replace(SPR, name="Sapphire Rapids"), "kebab-case"),
    (_lbr(SPR, depth_bitmap=0), "need a depth"),
    (_lbr(SPR, depth_bitmap=0x80), "more than 32"),
    (_lbr(SPR, branch_filter=False), "call-stack mode needs the branch filter"),
    (_lbr(SPR, event_logging=0x1F), "four counters"),
    (replace(_lbr(SPR, event_logging=8), pmu=Pmu(counters=2)), "that the PMU lacks"),
    (replace(SPR, pdcm=False), "LBR_FMT is 3FH"),
    (replace(SPR, xcr0=0), "need XSAVE"),
    (replace(SPR, xcr0=0x27), "AVX-512"),
    (replace(SPR, xcr0=1), "XCR0\\[1:0\\]"),
    (replace(SPR, pt=False), "component 8"),
    (replace(SKL, xss=1 << 15), "component 15"),
    (replace(SPR, linear_width=64), "32 to 57"),
    (_lbr(SKL, depth=12), "4, 8, 16 and 32"),
    (_lbr(SKL, format=8), "0 to 7"),
    (_lbr(SKL, info_base=None), "INFO registers"),
    (_lbr(HSW, to_base=None), "format 0"),
    (_lbr(HSW, signext_quirk=True), "without TSX"),
    (_lbr(HSW, select=False), "EN_CALLSTACK"),
    (_lbr(MODELS["core2"], jmps_include_calls=True), "jmps_include_calls"),
    (replace(SPR, pt_excludes_lbr=True), "exclude each other"),
    (replace(SPR, pmu=Pmu(version=7)), "0 to 6"),
    (replace(SPR, pmu=Pmu(counters=9)), "1 to 8"),
    (replace(SPR, pmu=Pmu(version=1, fixed=3)), "version 2"),
    (replace(SPR, pmu=Pmu(pebs_baseline=True)), "format 4"),
    (replace(MODELS["zen4"], pdcm=True), "are Intel's"),
    (replace(SPR, vendor="AuthenticAMD"), "are Intel's"),
    (replace(MODELS["zen4"], vendor="GenuineIntel"), "AMD's"),
])
def test_impossible_models_are_refused_with_a_sentence(wrong, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        check(wrong)


def test_two_registers_may_not_share_a_number():
    with pytest.raises(ConfigurationError, match="share MSR"):
        registers(_lbr(SKL, to_base=SKL.lbr.from_base))


def test_a_model_of_ones_own():
    mine = architectural("mine", depths=(16,), cpl_filter=False, event_logging=3, rtm=False,
                         hle=False)
    assert mine.lbr == ArchLbr(depth_bitmap=2, cpl_filter=False, event_logging=3)
    assert not mine.tsx and mine.lbr.depths == (16,)
    for words in ({"depths": (12,)}, {"depths": (64,)}, {"no_such": 1}, {"base": "skylake"}):
        with pytest.raises(ConfigurationError):
            architectural(**words)
    with pytest.raises(ConfigurationError, match="not known"):
        model("pentium-9")


def test_the_legacy_rows_have_the_numbers_of_the_kernel():
    """Spec 3.3: depth, FROM, TO, INFO, LBR_SELECT."""
    rows = {
        "pentium-m": (8, 0x40, None, None, False, 0),
        "willamette": (4, 0x1DB, None, None, False, 0),
        "prescott": (16, 0x680, 0x6C0, None, False, 1),
        "core2": (4, 0x40, 0x60, None, False, 2),
        "bonnell": (8, 0x40, 0x60, None, False, 2),
        "silvermont": (8, 0x40, 0x60, None, True, 3),
        "nehalem": (16, 0x680, 0x6C0, None, True, 3),
        "sandy-bridge": (16, 0x680, 0x6C0, None, True, 3),
        "haswell": (16, 0x680, 0x6C0, None, True, 4),
        "skylake": (32, 0x680, 0x6C0, 0xDC0, True, 5),
        "knights-landing": (8, 0x680, 0x6C0, None, True, 3),
        "goldmont": (32, 0x680, 0x6C0, None, True, 6),
        "goldmont-plus": (32, 0x680, 0x6C0, 0xDC0, True, 7),
    }
    for name, row in rows.items():
        lbr = MODELS[name].legacy
        assert (lbr.depth, lbr.from_base, lbr.to_base, lbr.info_base, lbr.select,
                lbr.format) == row, name
    assert {MODELS[name].legacy.format for name in rows} == set(FORMATS)
    assert MODELS["knights-landing"].lbr_format == 1
    assert MODELS["sapphire-rapids"].lbr_format == 0x3F
