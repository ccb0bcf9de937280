"""The guards that the mutant search leaves out, each as the edits that leave it out.

The policies of `pylbr.arbitration` do not contain them.  The build applies the edits to the
policies' sources (`pylbr.verify.weave`), each under a switch, and makes one module of the result;
an edit whose text is not there, or is there twice, ends the build.  Imports nothing of pylbr: the
build runs it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GUARDS", "MODULES", "POLICIES", "Edit", "Guard"]

#: Modules of `pylbr.arbitration` that are edited, a class before those that derive from it.
MODULES = ("single_owner", "request", "mediated", "lease")
#: Policies that have guards, and their classes.
POLICIES = {"request": "Request", "mediated": "Mediated", "mediated-merged": "MediatedMerged",
            "lease": "Lease"}


@dataclass(frozen=True)
class Edit:
    """One place of a guard.

    Attributes
    ----------
    where : str
        Class and method.
    old : str
        A whole statement, or a condition inside one.
    new : str
        What stands there while the guard is left out.
    """

    where: str
    old: str
    new: str = "pass"


@dataclass(frozen=True)
class Guard:
    """A guard that can be left out.

    Attributes
    ----------
    name : str
    what : str
        What is missing then.
    edits : tuple of Edit
    policies : tuple of str
        Those that need it, or where the search shows that they do not.
    needs : str
        Feature without which nothing can show.
    """

    name: str
    what: str
    edits: tuple[Edit, ...]
    policies: tuple[str, ...] = tuple(POLICIES)
    needs: str = ""


_TRACED = "c.perf.granted and not c.perf.flags & EXCLUDE_GUEST"

#: `mediated` lets no host event and no guest of another vCPU count while a guest is loaded.
_BESIDE = ("request", "lease")
_MEDIATED = ("mediated", "mediated-merged")
#: `mediated-merged` has a guest in the registers only while interrupts are off or the guest runs.
_OUTSIDE = ("request", "mediated", "lease")

GUARDS = {guard.name: guard for guard in (
    Guard("no-wipe", "registers are handed on as they are",
          (Edit("SingleOwner.wipe", "hw_init(&c.hw)"),)),
    Guard("wipe-by-depth", "wipe by a write of DEPTH alone, which leaves LER",
          (Edit("SingleOwner.wipe", "hw_init(&c.hw)", "hw_reset_records(&c.hw)"),)),
    Guard("no-xss-exiting", "XSS-exiting bitmap is left 0: XSAVES reads the registers",
          (Edit("SingleOwner.keep_out", "v.xss_exit = 1", "v.xss_exit = 0"),), _BESIDE),
    Guard("keep-clear-off", "exit does not clear LBR_CTL of a guest that owns",
          (Edit("SingleOwner.admit", "v.vmcs.clear_lbr_ctl = 1", "v.vmcs.clear_lbr_ctl = 0"),)),
    Guard("no-restore-ctl", "host's LBR_CTL is not put back after exit",
          (Edit("SingleOwner.after_exit", "hw_set_ctl(&c.hw, c.perf.programmed)"),), _BESIDE),
    Guard("no-pause-clear", "image keeps old records while branches are missed",
          (Edit("SingleOwner.keep_out", "v.ctl & CTL_LBREN and not v.frozen", "False"),), _BESIDE),
    Guard("guest-runs-host-ctl", "entry leaves the host's LBR_CTL on",
          (Edit("SingleOwner.keep_out", f"v.vmcs.load_lbr_ctl = not ({_TRACED})",
                "v.vmcs.load_lbr_ctl = 0"),), _BESIDE),
    Guard("no-reset-at-switch", "perf's records survive a task switch",
          (Edit("SingleOwner.task_in", "c.perf.granted", "False"),)),
    Guard("take-in-ipi", "perf takes the registers in the IPI",
          (Edit("SingleOwner.perf_update", "c.owner == OWNER_NONE", "True"),), _OUTSIDE),
    Guard("keep-passthrough", "interception is not switched back on",
          (Edit("SingleOwner.keep_out", "v.passthrough = 0"),), _BESIDE),
    Guard("no-recheck", "requests are not looked at again with interrupts off",
          (Edit("Request.pending", "return c.wanted", "return False"),
           Edit("Lease.pending", "return c.wanted", "return False")), _BESIDE),
    Guard("keep-wanted", "a closed event's request is not withdrawn",
          (Edit("SingleOwner.perf_update", "c.wanted = 0"),), _OUTSIDE),
    Guard("no-attach-at-put", "the vCPU leaves, perf is not attached",
          (Edit("SingleOwner.yield_guest", "c.perf.hosts", "False"),), _OUTSIDE),
    Guard("restore-loads-ctl", "XRSTORS loads the guest's LBREn in the host",
          (Edit("SingleOwner.load_guest", "v.image.ctl = 0", "v.image.ctl = v.ctl"),)),
    Guard("keep-enabled", "perf's LBR_CTL stays on when it is detached",
          (Edit("SingleOwner.detach", "perf_disable(&c.perf, &c.hw)"),)),
    Guard("no-save", "the guest's records are not saved",
          (Edit("SingleOwner.save_guest", "hw_save(&c.hw, &v.image)"),)),
    Guard("no-reset-at-change", "records stay when perf turns to events that ask for something "
          "else",
          (Edit("SingleOwner.perf_update", "c.perf.fresh & FRESH_FLAGS", "False"),)),
    Guard("drop-ctl", "the guest's LBR_CTL is not fetched from the VMCS after exit",
          (Edit("SingleOwner.after_exit", "v.ctl = v.vmcs.lbr_ctl"),)),
    Guard("nested-no-controls", "vmcs02 has L1's controls alone, neither 21 nor 26",
          (Edit("SingleOwner.admit", "v.vmcs.load_lbr_ctl = 1",
                "v.vmcs.load_lbr_ctl = not v.level2"),
           Edit("SingleOwner.admit", "v.vmcs.clear_lbr_ctl = 1",
                "v.vmcs.clear_lbr_ctl = not v.level2"),
           Edit("SingleOwner.keep_out", f"v.vmcs.load_lbr_ctl = not ({_TRACED})",
                f"v.vmcs.load_lbr_ctl = not v.level2 and not ({_TRACED})")),
          needs="nested"),
    Guard("nested-keep-ctl", "L1 continues with L2's LBR_CTL in spite of control 26",
          (Edit("SingleOwner.emulate", "nested_exit(v, False)", "nested_exit(v, False, True)"),),
          needs="nested"),
    Guard("nested-no-load", "L2 continues with L1's LBR_CTL in spite of control 21",
          (Edit("SingleOwner.emulate",
                "nested_entry(v, instruction == GUEST_VMLAUNCH_CONTROLS, False)",
                "nested_entry(v, instruction == GUEST_VMLAUNCH_CONTROLS, False, True)"),),
          needs="nested"),
    Guard("pmi-no-freeze", "a PMI freezes nothing of a version 4 vPMU, as in merged code",
          (Edit("SingleOwner.guest_pmi", "v.frozen = 1"),), _BESIDE, "vpmi"),
    Guard("no-refreeze", "LBR_FRZ of the guest is not set again at VM entry",
          (Edit("SingleOwner.admit", "lbr_set_frozen(&c.hw.lbr, 1)"),), needs="vpmi"),
    Guard("keep-frozen", "LBR_FRZ of the guest stays set in the host",
          (Edit("SingleOwner.after_exit", "lbr_set_frozen(&c.hw.lbr, 0)"),), needs="vpmi"),
    Guard("ack-by-host", "the host's PMI handler acknowledges the guest's LBR_FRZ",
          (Edit("SingleOwner.pmi",
                "c.owner < OWNER_GUEST or c.hw.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI",
                "True"),),
          (*_MEDIATED, "lease"), "vpmi"),
    Guard("drop-debugctl", "the guest's DEBUGCTL is not loaded at VM entry",
          (Edit("SingleOwner.admit", "v.vmcs.debugctl = v.debugctl", "v.vmcs.debugctl = 0"),
           Edit("SingleOwner.keep_out", "v.vmcs.debugctl = v.debugctl", "v.vmcs.debugctl = 0")),
          needs="vpmi"),
    Guard("drop-frozen", "LBR_FRZ that the hardware has set is not read at VM exit",
          (Edit("SingleOwner.after_exit", "v.frozen = c.hw.lbr.frozen"),), _MEDIATED, "vpmi"),
    Guard("late-thaw", "a counter of the host that overflows just before VM entry freezes the "
          "guest's LBRs",
          (Edit("SingleOwner.admit", "hw_set_debugctl(&c.hw, 0)"),), ("lease",), "host-freeze"),
    Guard("host-frozen", "LBR_FRZ of the host stays set for a guest that owns",
          (Edit("SingleOwner.admit", "lbr_set_frozen(&c.hw.lbr, 0)"),), ("lease",),
          "host-freeze"),
    Guard("status-kept", "IA32_PERF_GLOBAL_STATUS is not switched with the PMU",
          (Edit("_MediatedPmu.take_from_host", "lbr_set_frozen(&c.hw.lbr, 0)"),), ("mediated",),
          "host-freeze"),
    Guard("drop-host-debugctl", "the host's DEBUGCTL is not put back after exit",
          (Edit("SingleOwner.after_exit", "hw_set_debugctl(&c.hw, v.snapshot)"),),
          needs="host-freeze"),
    Guard("thawed-image", "records that wait for a PMI continue when they come back",
          (Edit("Lease.attach", "lbr_set_frozen(&c.hw.lbr, 1)"),), ("lease",), "host-freeze"),
    Guard("guest-pebs-lbrs", "a guest without the registers keeps MSR_PEBS_DATA_CFG.LBRS",
          (Edit("SingleOwner.keep_out", "v.pebs_lbrs = 0", "v.pebs_lbrs = 1"),), _BESIDE, "pebs"),
    Guard("keep-pebs", "detached perf keeps MSR_PEBS_DATA_CFG.LBRS",
          (Edit("SingleOwner.pebs", "c.perf.granted", "True"),), needs="pebs"),
    Guard("reset-keeps-records", "a reset of the vCPU clears the image alone, not the registers "
          "that it owns",
          (Edit("SingleOwner.cold_reset", "hw_init(&c.hw)"),), _OUTSIDE, "reset"),
    Guard("stale-stack", "what a task's event saved is restored again and again",
          (Edit("SingleOwner.task_out", "context.saved_valid = 0"),
           Edit("SingleOwner.task_in", "context.saved_valid = 0")), _BESIDE, "stack"),
    Guard("silent-stack", "a window that was cut in an earlier turn of the task is not marked",
          (Edit("SingleOwner.task_in", "c.perf.cut |= context.saved_cut"),), ("lease",), "stack"),
    Guard("no-swap-back", "the host gets the registers at put only",
          (Edit("Lease.after_exit", "not c.perf.hosts", "True"),), ("lease",)),
    Guard("silent-cut", "a window that began late is not marked",
          (Edit("Lease.attach", "c.perf.cut |= c.wanted"),), ("lease",)),
    Guard("keep-host-image", "the host's image outlives its event",
          (Edit("Lease.perf_update", "c.perf.context.saved_valid = 0"),), ("lease",)),
    Guard("keep-depth", "the host continues with the guest's IA32_LBR_DEPTH",
          (Edit("Lease.attach", "c.hw.lbr.depth != s.host_depth", "False"),), ("lease",)),
    Guard("late-grant-revoke", "perf still counts as attached while swapped out",
          (Edit("Lease.suspend_host", "c.perf.granted = 0"),), ("lease",)),
)}
