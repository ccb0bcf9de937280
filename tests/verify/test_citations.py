"""What docs/contract.md cites of Linux is there: by file and line in 6.1.192, by file in others.

Reads a source tree where there is one: `$PYLBR_LINUX_SOURCE`, /usr/src/linux-source-6.1, or the
archive of Debian's package of that name.
"""

import os
import re
import tarfile
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "contract.md").read_text()
WRITTEN_FOR = "6.1.192"
FILES = {
    "lbr.c": "arch/x86/events/intel/lbr.c", "icore.c": "arch/x86/events/intel/core.c",
    "xcore.c": "arch/x86/events/core.c", "ecore.c": "kernel/events/core.c",
    "kernel/sched/core.c": "kernel/sched/core.c",
    **{name: f"arch/x86/kvm/vmx/{name}" for name in ("pmu_intel.c", "vmx.c", "vmx.h", "nested.c")},
    **{name: f"arch/x86/kvm/{name}" for name in ("x86.c", "pmu.c", "pmu.h")}}

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


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    given = os.environ.get("PYLBR_LINUX_SOURCE", "/usr/src/linux-source-6.1")
    if Path(given, "Makefile").exists():
        return Path(given)
    archive = Path("/usr/src/linux-source-6.1.tar.xz")
    if not archive.exists():
        pytest.skip("no source of Linux 6.1 (Debian's package linux-source-6.1)")
    place = tmp_path_factory.mktemp("linux")
    with tarfile.open(archive) as files:
        for member in files:
            name = member.name.removeprefix("linux-source-6.1/")
            if name == "Makefile" or name in FILES.values():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(files.extractfile(member).read())
    return place


@pytest.mark.peer
@pytest.mark.slow
def test_each_place_has_what_the_page_claims(source):
    make = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)$",
                           (source / "Makefile").read_text(), re.M))
    version = ".".join(make[name] for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))
    missing = []
    for place, expression in EXPECTED.items():
        name, lines = place.rsplit(":", 1)
        text = (source / FILES[name]).read_text()
        if version == WRITTEN_FOR:
            first, _, last = lines.partition("-")
            text = "\n".join(text.split("\n")[int(first) - 1:int(last or first)])
        if not re.search(expression, text):
            missing.append(place)
    assert not missing, f"of {version}"
