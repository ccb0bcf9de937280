"""What the contract and its page of sources cite of Linux is there: by file, function and line in
the releases for which they are written, by file and function in others.

Reads the archives of Debian's packages `linux-source-6.1` and `linux-source-6.12`, or a tree of
6.1 at `$PYLBR_LINUX_SOURCE`.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from pylbr.arch import bits
from pylbr.arch.rows_pmu import PMU_ROWS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "contract.md").read_text()
SOURCES = (DOCS / "contract-source.md").read_text()
WRITTEN_FOR = {"6.1": "6.1.192", "6.12": "6.12.117"}
FILES = {
    "lbr.c": "arch/x86/events/intel/lbr.c", "icore.c": "arch/x86/events/intel/core.c",
    "xcore.c": "arch/x86/events/core.c", "ecore.c": "kernel/events/core.c",
    "kernel/sched/core.c": "kernel/sched/core.c",
    **{name: f"arch/x86/kvm/vmx/{name}" for name in ("pmu_intel.c", "vmx.c", "vmx.h", "nested.c")},
    **{name: f"arch/x86/kvm/{name}" for name in (
        "x86.c", "pmu.c", "pmu.h", "cpuid.c", "svm/svm.c", "svm/sev.c")},
    "msr-index.h": "arch/x86/include/asm/msr-index.h"}

#: Place -> what must be found there: a name or two, enough to know the place again.
EXPECTED = {
    "lbr.c:129-130": r"version >= 4",
    "lbr.c:541-571": r"void intel_pmu_lbr_sched_task\(",
    "lbr.c:614-616": r"lbr_users\+\+ && !event->total_time_running",
    "lbr.c:693": r"!vlbr_exclude_host\(\)",
    "lbr.c:934": r"vlbr_exclude_host\(\)",
    "lbr.c:985-987": r"!x86_pmu_has_lbr_callstack\(\)",
    "lbr.c:1060-1063": r"LBR_NO_INFO",
    "lbr.c:1624-1626": r"vlbr_constraint",
    "icore.c:3086-3087": r"intel_pmu_lbr_read\(\);\s+intel_pmu_ack_status",
    "icore.c:3115": r"__intel_pmu_enable_all",
    "icore.c:3223": r"era->config == reg->config",
    "icore.c:3347-3355": r"intel_vlbr_constraints\((?s:.*)intel_shared_regs_constraints\(",
    "icore.c:3983-3988": r"x86_add_exclusive\(x86_lbr_exclusive_lbr\)",
    "xcore.c:433-461": r"int x86_add_exclusive\(",
    "xcore.c:1465-1490": r"x86_pmu_add",
    "xcore.c:2296-2316": r"x86_pmu_commit_txn(?s:.*)x86_pmu_schedule_events",
    "ecore.c:1075-1116": r"HRTIMER_MODE_ABS_PINNED_HARD",
    "ecore.c:2739-2743": r"CPU pinned(?s:.*)task flexible",
    "ecore.c:2780-2785": r"cpu_ctx_sched_out\(cpuctx, EVENT_FLEXIBLE\)",
    "ecore.c:2805-2862": r"__perf_install_in_context\(",
    "ecore.c:2914": r"if \(!task\)",
    "ecore.c:2986-3025": r"ctx_resched\(",
    "ecore.c:3462-3571": r"perf_event_context_sched_out\(",
    "ecore.c:3828-3832": r"PERF_EVENT_STATE_ERROR",
    "ecore.c:3924-4004": r"perf_event_context_sched_in\(",
    "kernel/sched/core.c:5066-5068": r"perf_event_task_sched_out(?s:.*)fire_sched_out_preempt",
    "kernel/sched/core.c:5131-5146": r"perf_event_task_sched_in(?s:.*)fire_sched_in_preempt",
    "pmu_intel.c:254-255": r"cpu pinned event reclaims LBR",
    "pmu_intel.c:280-283": r"if \(unlikely\(lbr_desc->event\)\)",
    "pmu_intel.c:312-313": r"intel_pmu_create_guest_lbr_event\(vcpu\) < 0",
    "pmu_intel.c:316-337": r"local_irq_disable\(\)",
    "pmu_intel.c:321-332": r"local_irq_disable\(\)(?s:.*)local_irq_enable\(\)",
    "pmu_intel.c:673-681": r"intel_pmu_legacy_freezing_lbrs_on_pmi",
    "pmu_intel.c:673-692": r"version > 1 && version < 4",
    "pmu_intel.c:733-741": r"Higher priority host perf events",
    "pmu_intel.c:756-759": r"state < PERF_EVENT_STATE_ACTIVE",
    "pmu_intel.c:770-774": r"& DEBUGCTLMSR_LBR(?s:.*)intel_pmu_release_guest_lbr_event",
    "vmx.c:818-819": r"DB_VECTOR",
    "vmx.c:2187": r"vmx_guest_debugctl_write",
    "vmx.c:2189": r"intel_pmu_lbr_is_enabled",
    "vmx.c:4799-4804": r"vmx_vcpu_reset\((?s:.*)if \(!init_event\)",
    "vmx.c:5214-5232": r"kvm_queue_exception_p\(vcpu, DB_VECTOR",
    "vmx.c:7302-7304": r"update_debugctlmsr\(",
    "vmx.c:7304": r"update_debugctlmsr\(",
    "vmx.c:7784-7788": r"PMU_CAP_LBR_FMT",
    "vmx.h:449-455": r"vmx_guest_debugctl_write\(",
    "vmx.h:506": r"VM_ENTRY_LOAD_DEBUG_CONTROLS",
    "nested.c:571-656": r"msr_bitmap_l0",
    "x86.c:1463-1506": r"msrs_to_save_all",
    "x86.c:10818": r"local_irq_disable\(\)",
    "x86.c:10885-10895": r"host DEBUGCTL snapshot after disabling IRQs",
    "x86.c:12512-12519": r"kvm_arch_sched_in\((?s:.*)need_cleanup",
    "pmu.c:245": r"perf_event_enable\(",
    "pmu.c:360": r"need_cleanup",
    "pmu.h:199": r"min\(kvm_pmu_cap.version, 2\)",
}

#: Places that are in no function: what they are.
OUTSIDE = {
    "lbr.c:1624-1626": "vlbr_constraint", "ecore.c:2739-2743": "comment of ctx_resched",
    "pmu_intel.c:733-741": "comment of vmx_passthrough_lbr_msrs",
    "vmx.h:506": "__KVM_REQUIRED_VMX_VM_ENTRY_CONTROLS", "x86.c:1463-1506": "msrs_to_save_all"}
#: Of places that 6.12 has changed: the function, and what must be found there.
CHANGED = {
    "ecore.c:2780-2785": ("ctx_resched", r"\bctx_sched_out\(&cpuctx->ctx, pmu, EVENT_FLEXIBLE"),
    "x86.c:1463-1506": ("msrs_to_save_base", r"u32 msrs_to_save_base\[\]"),
    "x86.c:12512-12519": ("kvm_arch_vcpu_load", r"need_cleanup")}

#: Rows of contract-source.md in order: file and function, and what must be found there.
ROWS = [
    ("vmx.c: vmx_get_perf_capabilities", r"PMU_CAP_LBR_FMT|PERF_CAP_LBR_FMT"),
    ("lbr.c: x86_perf_get_lbr", r"lbr->nr = "),
    ("icore.c: intel_pmu_hw_config", r"intel_pmu_setup_lbr_filter\(event\)"),
    ("icore.c: intel_pmu_hw_config", r"x86_add_exclusive\(x86_lbr_exclusive_lbr\)"),
    ("ecore.c: __perf_install_in_context", r"ctx_resched\("),
    ("ecore.c: ctx_resched", r"ctx_sched_out\("),
    ("ecore.c: merge_sched_in", r"PERF_EVENT_STATE_ERROR"),
    ("icore.c: __intel_get_event_constraints", r"intel_vlbr_constraints\("),
    ("icore.c: __intel_get_event_constraints", r"intel_shared_regs_constraints\("),
    ("lbr.c: intel_pmu_lbr_add", r"lbr_users\+\+ && !event->total_time_running"),
    ("lbr.c: intel_pmu_lbr_enable_all", r"!vlbr_exclude_host\(\)"),
    ("vmx.c: vmx_set_msr", r"intel_pmu_create_guest_lbr_event\("),
    ("pmu_intel.c: intel_pmu_create_guest_lbr_event", r"perf_event_create_kernel_counter\("),
    ("pmu_intel.c: intel_pmu_handle_lbr_msrs_access", r"local_irq_disable\(\);"),
    ("x86.c: vcpu_enter_guest", r"local_irq_disable\(\);"),
    ("x86.c: vcpu_enter_guest", r"get_debugctlmsr\(\)"),
    ("vmx.c: vmx_vcpu_run", r"vmx_passthrough_lbr_msrs\("),
    ("pmu_intel.c: vmx_passthrough_lbr_msrs", r"state < PERF_EVENT_STATE_ACTIVE"),
    ("vmx.c: vmx_vcpu_run", r"update_debugctlmsr\("),
    ("vmx.h: vmx_guest_debugctl_write", r"GUEST_IA32_DEBUGCTL"),
    ("vmx.h: vmx_guest_debugctl_read", r"FREEZE_IN_SMM"),
    ("vmx.c: init_vmcs", r"XSS_EXIT_BITMAP"),
    ("kernel/sched/core.c: prepare_task_switch", r"perf_event_task_sched_out"),
    ("kernel/sched/core.c: finish_task_switch", r"perf_event_task_sched_in"),
    ("lbr.c: intel_pmu_lbr_sched_task", r"__intel_pmu_lbr_save\("),
    ("x86.c: kvm_arch_sched_in, kvm_arch_vcpu_load", r"need_cleanup"),
    ("pmu_intel.c: intel_pmu_cleanup", r"intel_pmu_release_guest_lbr_event\("),
    ("ecore.c: __perf_mux_hrtimer_init", r"HRTIMER_MODE_ABS_PINNED_HARD"),
    ("ecore.c: perf_mux_hrtimer_handler", r"perf_rotate_context\("),
    ("icore.c: intel_pmu_handle_irq", r"intel_pmu_lbr_read\(\)"),
    ("lbr.c: intel_pmu_lbr_read", r"vlbr_exclude_host\(\)"),
    ("lbr.c: __intel_pmu_lbr_enable", r"version >= 4"),
    ("pmu_intel.c: intel_pmu_deliver_pmi", r"version > 1 && version < 4"),
    ("pmu_intel.c: intel_pmu_legacy_freezing_lbrs_on_pmi", r"DEBUGCTLMSR_LBR"),
    ("vmx.c: handle_exception_nmi", r"kvm_queue_exception_p\(vcpu, DB_VECTOR"),
    ("vmx.c: vmx_vcpu_reset", r"if \(!init_event\)"),
    ("pmu_intel.c: intel_pmu_reset", r"intel_pmu_release_guest_lbr_event\("),
    ("nested.c: nested_vmx_prepare_msr_bitmap", r"msr_bitmap_l0"),
    ("nested.c: prepare_vmcs02", r"vmx_guest_debugctl_write\("),
    ("nested.c: nested_vmx_check_guest_state", r"vmx_is_valid_debugctl"),
    ("nested.c: load_vmcs12_host_state", r"vmx_guest_debugctl_write\(vcpu, 0\)"),
]
_ROW = re.compile(r"^\| [^|]+\| `([\w./]+: \w+)`(?:, `(\w+)`)? +\| (\d+) +\| (\d+) +\|", re.M)


#: Of AMD's LBRs (`pylbr.verify.svm`, `svm_stack`): file, release, what is there, and what is not.
AMD = [
    ("svm/svm.c", "6.1", r"mark_dirty\(svm->vmcb, VMCB_LBR\)", r"update_debugctlmsr\("),
    ("svm/svm.c", "6.12", r"update_debugctlmsr\(", r"void svm_disable_lbrv"),
    ("svm/sev.c", "6.1", r"virt_ext \|= LBR_CTL_ENABLE_MASK", r"svm_enable_lbrv\("),
    ("x86.c", "6.1", r"msrs_to_save_all", r"LASTBRANCHFROMIP, MSR_IA32_LASTBRANCHTOIP"),
    ("x86.c", "6.12", r"LASTBRANCHFROMIP, MSR_IA32_LASTBRANCHTOIP", r"msrs_to_save_all"),
    ("svm/svm.c", "6.12",
     r"dbgctl & DEBUGCTLMSR_LBR", r"DBG_EXTN_CFG|SAMP_BR|MSR_AMD64_LBR_SELECT"),
    ("svm/svm.c", "6.1", r"svm_copy_lbrs", r"DBG_EXTN_CFG|SAMP_BR|MSR_AMD64_LBR_SELECT"),
    ("cpuid.c", "6.12",
     r"kvm_defined\(CPUID_8000_0022_EAX,\s+F\(PERFMON_V2\)\s+\);", r"AMD_LBR_V2"),
    ("cpuid.c", "6.1", r"case 0x80000021", r"case 0x80000022|AMD_LBR_V2"),
    ("svm/sev.c", "6.12", r"svm_enable_lbrv\(", r"svm_disable_lbrv"),
]


_PLACE = re.compile(
    r"^\| (\S+:[\d-]+) +\| (\S.*?) +\| (\d+) +\| ([\da-f, ]*?|not found) +\|$", re.M)
_SEEN = re.compile(r"^\| ([\da-f]+) \| (\S[^|]+) \| (\S[^|]+) \|$", re.M)
#: Of which the page that has it shows eleven digits.
SHORT = "2c29ef0fef8"


def cited():
    """Every place that the page names, without those of 6.12."""
    names = "|".join(map(re.escape, sorted(FILES, key=len, reverse=True)))
    places = set()
    for found in re.finditer(rf"(6\.12\s+)?(?<![\w/])({names}):(\d[\d,\s-]*\d|\d)", PAGE):
        if not found[1]:
            places |= {f"{found[2]}:{lines.strip()}" for lines in found[3].split(",")}
    return places


def test_every_place_that_is_cited_has_its_expression():
    assert cited() - {"x86.c:10818"} == EXPECTED.keys() - {"x86.c:10818"}
    assert "after 10818" in PAGE


def test_every_row_has_its_expression():
    assert [", ".join(filter(None, row[:2])) for row in _ROW.findall(SOURCES)] == [
        place for place, _ in ROWS]
    assert all(version in SOURCES for version in WRITTEN_FOR.values())


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The cited files of each release, out of the packages' archives, both at a time."""
    found, running = {}, {}
    for release in WRITTEN_FOR:
        given = os.environ.get("PYLBR_LINUX_SOURCE")
        if given and release == "6.1":
            found[release] = Path(given)
            continue
        archive = Path(f"/usr/src/linux-source-{release}.tar.xz")
        if not archive.exists():
            pytest.skip(f"no source of Linux {release} (Debian's package linux-source-{release})")
        place = tmp_path_factory.mktemp("linux")
        found[release] = place / f"linux-source-{release}"
        running[release] = subprocess.Popen(
            ["tar", "-x", "-f", archive, "-C", place, "--occurrence=1",
             *(f"linux-source-{release}/{name}" for name in {"Makefile", *FILES.values()})])
    assert not any(tar.wait() for tar in running.values())
    return found


def version_of(source):
    make = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)$",
                           (source / "Makefile").read_text(), re.M))
    return ".".join(make[name] for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))


def body(text, function):
    """First line and text of a function's definition."""
    found = re.search(rf"^(?:[a-zA-Z_][^\n;#={{]*\b)?{function}\([^;{{]*?\)\s*\{{", text, re.M)
    assert found, f"no function {function}"
    return text.count("\n", 0, found.start()) + 1, text[found.start():text.index(
        "\n}", found.end())]


@pytest.mark.peer
@pytest.mark.slow
def test_each_place_has_what_the_page_claims(sources):
    missing = []
    version = version_of(sources["6.1"])
    for place, expression in EXPECTED.items():
        name, lines = place.rsplit(":", 1)
        text = (sources["6.1"] / FILES[name]).read_text()
        if version == WRITTEN_FOR["6.1"]:
            first, _, last = lines.partition("-")
            text = "\n".join(text.split("\n")[int(first) - 1:int(last or first)])
        if not re.search(expression, text):
            missing.append(place)
    assert not missing, f"of {version}"


_FUNCTION = re.compile(
    r"^(?!#)(?:[A-Za-z_][^\n;={]*?\b)?([A-Za-z_]\w*)\([^;{}]*?\)\s*\n\{", re.M)


def functions(text):
    """First and last line of each function, and its name."""
    for found in _FUNCTION.finditer(text):
        yield (text.count("\n", 0, found.start()) + 1,
               text.count("\n", 0, text.find("\n}", found.end())) + 2, found[1])


def found_in(text, names, expression):
    """Line of the first function of `names` that has the expression, or else of the file."""
    lines = text.split("\n")
    parts = [(first, last) for first, last, name in functions(text) if name in names]
    for first, last in [*parts, (1, len(lines))]:
        part = "\n".join(lines[first - 1:last])
        if match := re.search(expression, part):
            return first + part.count("\n", 0, match.start())
    return None


def test_the_table_of_places_has_each_that_is_cited():
    assert sorted(place for place, *_ in _PLACE.findall(SOURCES)) == sorted(EXPECTED)
    cells = [several.split(", ") for *_, several in _PLACE.findall(SOURCES)]
    commits = [commit for several in cells for commit in several if several != ["not found"]]
    assert cells.count(["not found"]) <= 8 and len(commits) >= 47
    assert all(re.fullmatch("[0-9a-f]{12}", commit) or commit == SHORT for commit in commits)
    assert "«not found»: looked for " in SOURCES


def test_each_commit_that_is_no_older_one_has_the_text_in_which_it_was_seen():
    """With its subject: what the table of texts has is used, and nothing is there twice."""
    seen = [commit for commit, *_ in _SEEN.findall(SOURCES)]
    assert len(seen) == len(set(seen)) >= 22
    without = SOURCES[:SOURCES.index("## Where the commits were seen")]
    without += SOURCES[SOURCES.index("## With a mediated PMU"):]
    assert all(commit in without for commit in seen)


@pytest.mark.peer
@pytest.mark.slow
def test_each_place_is_in_the_function_that_the_table_names(sources):
    if [version_of(source) for source in sources.values()] != list(WRITTEN_FOR.values()):
        pytest.skip("the lines are of other releases")
    wrong = []
    for place, named, later, _ in _PLACE.findall(SOURCES):
        name, lines = place.rsplit(":", 1)
        texts = [(source / FILES[name]).read_text() for source in sources.values()]
        first, _, last = lines.partition("-")
        around = [function for start, end, function in functions(texts[0])
                  if start <= int(last or first) and end >= int(first)]
        if ", ".join(around) != named and (around or OUTSIDE.get(place) != named):
            wrong.append((place, named, around))
        if place in OUTSIDE:
            assert named.split()[-1] in texts[0], place
        function, expression = CHANGED.get(place, (named, EXPECTED[place]))
        line = found_in(texts[1], function.split(", "), expression)
        if line != int(later):
            wrong.append((place, later, line))
    assert not wrong


@pytest.mark.peer
@pytest.mark.slow
def test_each_row_has_what_it_claims_in_both_releases(sources):
    wrong = []
    for row, (place, expression) in zip(_ROW.findall(SOURCES), ROWS, strict=True):
        name, functions = place.split(": ")
        for number, (release, source) in enumerate(sources.items()):
            function = functions.split(", ")[min(number, functions.count(","))]
            first, text = body((source / FILES[name]).read_text(), function)
            found = re.search(expression, text)
            line = first + text.count("\n", 0, found.start()) if found else None
            exact = version_of(source) == WRITTEN_FOR[release]
            if not found or (exact and line != int(row[2 + number])):
                wrong.append((release, place, row[2 + number], line))
    assert not wrong


@pytest.mark.peer
@pytest.mark.slow
def test_code_that_is_called_the_same_is_the_same(sources):
    """What the page says of the two releases together."""
    texts = [(source / FILES["pmu_intel.c"]).read_text() for source in sources.values()]
    for function in ("intel_pmu_handle_lbr_msrs_access", "intel_pmu_create_guest_lbr_event",
                     "intel_pmu_cleanup", "intel_pmu_deliver_pmi"):
        assert body(texts[0], function)[1] == body(texts[1], function)[1], function


@pytest.mark.peer
@pytest.mark.slow
def test_kvm_of_amd_has_what_the_models_take_of_it(sources):
    for name, release, there, absent in AMD:
        text = (sources[release] / FILES[name]).read_text()
        assert re.search(there, text), (name, release, there)
        assert not re.search(absent, text), (name, release, absent)


@pytest.mark.peer
@pytest.mark.slow
def test_registers_that_no_manual_has_are_numbered_as_in_linux(sources):
    """FRED and PMU version 6; those of architectural PEBS are in no package yet."""
    text = (sources["6.12"] / FILES["msr-index.h"]).read_text()
    numbers = {name: int(number, 0) for name, number in re.findall(
        r"^#define MSR_(\w+)\s+(0x[0-9a-f]+|\d+)\b", text, re.M)}
    fred = ("IA32_FRED_RSP0", "IA32_FRED_STKLVLS", "IA32_FRED_SSP1", "IA32_FRED_CONFIG")
    v6 = ("GP0_CTR", "GP0_CFG_A", "FX0_CTR")
    assert [getattr(bits, name) for name in fred] == [numbers[name] for name in fred]
    assert [getattr(bits, f"IA32_PMC_{name}") for name in v6] == [
        numbers[f"IA32_PMC_V6_{name}"] for name in v6]
    assert {row.stride for row in PMU_ROWS if row.name.startswith("IA32_PMC_")} == {
        numbers["IA32_PMC_V6_STEP"]}
