// request, mediated, lease: registers have one owner, and change it only empty.
#pragma once
#include "design.h"

struct Owned : Design {
    Owned() {
        host_may_be_short = true;
        sharing.exclusion_is_filter = true;
    }

    bool wants(const Vcpu &v) const { return lazy ? v.control & EN : v.uses; }
    void wipe(Cpu &c) {
        if (has("no-wipe")) return;
        if (has("wipe-by-depth")) c.regs.bank.clear_records();
        else c.regs.initialise();
    }
    virtual void attach(Machine &m, Cpu &c) {
        m.seen.twice |= c.attached;
        c.owner = HOST, c.attached = 1, c.wanted = 0;
        m.program(c, m.running_on(c));
    }
    void detach(Cpu &c) {
        if (!has("keep-enabled")) c.regs.control = 0;
        c.attached = c.programmed = 0;
        wipe(c);
        c.owner = EMPTY;
    }
    void give_to_guest(Cpu &c, int g, Vcpu &v) {
        c.owner = GUEST + g;
        v.image_control = has("restore-loads-ctl") ? v.control : 0;
        c.regs.bank = v.image, c.regs.control = v.image_control;
    }

    // Save, wipe, pass on: interrupts are off meanwhile.
    bool take_from_guest(Machine &m, Cpu &c, int g, int part, bool interrupts) {
        c.interrupts = 0;
        if (part == 0) {
            m.touch(c, GUEST + g);
            if (!has("no-save")) m.w.vcpu[g].image = c.regs.bank;
            m.w.vcpu[g].image_control = 0;
        } else if (part == 1) {
            wipe(c);
            c.owner = EMPTY;
        } else {
            if (m.running_on(c).hosts && !has("no-attach-at-put")) attach(m, c);
            c.interrupts = interrupts;
        }
        return part == 2;
    }

    // The guest enters as owner: no overflow of the host freezes its records, and none did.
    void let_in(Machine &m, Cpu &c, Vcpu &v) {
        if (m.host_freezes) {
            v.snapshot = c.regs.debugctl;
            if (!has("late-thaw")) c.regs.debugctl = 0;
        }
        if (c.regs.frozen) {
            c.stash_frozen = m.host_freezes;
            if (!has("host-frozen")) c.regs.frozen = 0;
        }
        if (v.frozen && !has("no-refreeze")) c.regs.frozen = 1;
        v.entry_debugctl = has("drop-debugctl") ? 0 : v.debugctl;
        v.passthrough = v.pebs_lbrs = 1, v.xsaves_exit = 0;
        v.entry_control = v.control, v.load = 1, v.clear = !has("keep-clear-off");
        if (v.level2 && has("nested-no-controls")) v.load = v.clear = 0;
    }
    void keep_out(Machine &m, Cpu &c, Vcpu &v) {
        if (!has("keep-passthrough")) v.passthrough = 0;
        v.xsaves_exit = !has("no-xss-exiting");
        v.pebs_lbrs = has("guest-pebs-lbrs");
        if (m.host_freezes) v.snapshot = c.regs.debugctl;
        v.entry_debugctl = has("drop-debugctl") ? 0 : v.debugctl;
        if (v.control & EN && !v.frozen && !has("no-pause-clear")) {
            v.image.clear();
            v.lost = guest_has_flag;
        }
        if (mediated && v.frozen) c.regs.frozen = 1;  // the rest of the PMU is the guest's
        bool trace = c.attached && m.running_on(c).traces_guests();
        v.entry_control = 0, v.clear = 0, v.load = !trace && !has("guest-runs-host-ctl");
        if (v.level2 && has("nested-no-controls")) v.load = 0;
    }

    void events_changed(Machine &m, Cpu &c, const Running &now) override {
        if (!now.hosts) {
            if (c.attached) detach(c);
            if (!has("keep-wanted")) c.wanted = 0;
        } else if (c.attached) {
            if (now.other && !has("no-reset-at-change")) c.regs.bank.clear_records();
            if (c.programmed != control_for(now)) m.program(c, now);
        } else if (c.owner == EMPTY || has("take-in-ipi")) {
            attach(m, c);
        } else {
            c.wanted = 1;
        }
    }
    void task_leaves(Machine &m, Cpu &c) override {
        Running before = m.running_on(c);
        Context &context = m.context(c);
        if (c.attached && before.call_stack()) context.stash = {1, c.regs.control, c.regs.bank};
        else if (!has("stale-stack")) context.stash = Stash{};
        context.stash_cut = before.call_stack() && (c.cut || !c.attached);
        stop_all(context);
        events_changed(m, c, schedule(c.events, nullptr, sharing, before));
    }
    void task_comes(Machine &m, Cpu &c) override {
        Context &context = m.context(c);
        Running now = schedule(c.events, &context, sharing, m.running_on(c));
        events_changed(m, c, now);
        if (c.attached && !has("no-reset-at-switch")) {
            c.regs.bank.clear_records(), c.cut = 0;
            if (now.call_stack() && context.stash.valid) {
                context.stash.control = c.regs.control = c.programmed;
                c.regs.bank = context.stash.bank;
            }
        }
        if (now.call_stack() && !has("silent-stack")) c.cut |= context.stash_cut;
        context.stash_cut = 0;
        if (!has("stale-stack")) context.stash = Stash{};
    }

    bool put(Machine &m, Cpu &c, int g, int part) override {
        if (part == 0 && c.owner != GUEST + g) return true;
        return take_from_guest(m, c, g, part, c.doing.back().step == MIGRATE_PUT);
    }
    bool take_back(Machine &m, Cpu &c, int g, int) override {
        Vcpu &v = m.w.vcpu[g];
        v.entry_debugctl = 0;
        if (m.host_freezes) {
            if (!has("drop-host-debugctl")) c.regs.debugctl = v.snapshot;
            v.snapshot = 0;
        }
        if (c.owner == GUEST + g) {
            if (!has("drop-ctl")) v.control = v.entry_control;
            v.entry_control = 0;
        } else if (c.attached && !has("no-restore-ctl")) {
            c.regs.control = c.programmed;
        }
        if (mediated || c.owner == GUEST + g) {
            if (mediated && !has("drop-frozen")) v.frozen = c.regs.frozen;
            if (!has("keep-frozen")) c.regs.frozen = 0;
        }
        return true;
    }
    bool emulate(Machine &m, Cpu &c, int g, int, Instruction what) override {
        Vcpu &v = m.w.vcpu[g];
        v.uses = 1;
        switch (what) {
        case READ: m.show(BY_MSR, v.image, v.control, v.lost); break;
        case XSAVES: m.show(BY_XSAVES, v.image, v.control, v.lost); break;
        case WRITE: v.image.at[0] = c.operand; break;
        case DEPTH:
            v.image.clear_records(), v.lost = 0;
            if (c.owner == GUEST + g) c.regs.bank.clear_records();
            break;
        case XRSTORS: v.image.clear(), v.image.at[0] = c.operand, v.image_control = 0; break;
        case RESET:
            v.image.clear();
            if (c.owner == GUEST + g && !has("reset-keeps-records")) c.regs.initialise();
            v.control = v.debugctl = v.smm = v.smm_control = v.lost = 0;
            v.pmi = v.frozen = v.level2 = v.vmcs12_control = v.vmcs12_debugctl = 0;
            break;
        case LAUNCH: case LAUNCH_CONTROLS:
            enter_l2(v, what == LAUNCH_CONTROLS, false, has("nested-no-load"));
            break;
        case CALL_L1: exit_to_l1(v, false, has("nested-keep-ctl")); break;
        case SET_DEBUGCTL: v.vmcs12_debugctl = 0; break;
        case SET_FREEZE: v.debugctl |= DEBUG_FREEZE; break;
        case ACKNOWLEDGE: v.frozen = 0; break;
        case INTERRUPT: case INIT: case COUNTER: case HOST_COUNTER: case PEBS: break;
        case SMI: v.smm = 1, v.smm_control = v.control & EN, v.control &= ~EN; break;
        case RSM: v.control |= v.smm_control, v.smm = v.smm_control = 0; break;
        case DEBUG: v.control &= ~EN; break;
        case ENABLE: case DISABLE: case USER_FILTER: v.control = written(what, v.control, false);
        }
        return true;
    }
    void sample(Machine &m, Cpu &c) override {
        read_for_host(m, c, c.attached && m.running_on(c).handled);
        c.stash_frozen = 0;
        if (lazy && mediated && !c.attached) return;  // the PMU is the guest's, LBRs or not
        bool of_host = c.owner < GUEST || c.regs.debugctl & DEBUG_FREEZE;
        if (of_host || has("ack-by-host")) c.regs.frozen = 0;
    }
    void pebs_sample(Machine &m, Cpu &c) override {
        read_for_host(m, c, c.attached || has("keep-pebs"));
    }
    void read_for_host(Machine &m, Cpu &c, bool present) {
        m.show(BY_SAMPLE, present ? c.regs.bank : Bank{}, 0, c.cut || !present);
    }
    bool offers_pebs() const override { return true; }
    // A counter that is a perf event exits by NMI, and the host acknowledges; so KVM keeps LBR_FRZ.
    // A mediated one does not concern the host.
    void guest_pmi(Machine &m, Cpu &c, int g) override {
        Vcpu &v = m.w.vcpu[g];
        v.pmi = 1;
        if (mediated) return;
        c.regs.frozen = 0;
        if (v.debugctl & DEBUG_FREEZE && !has("pmi-no-freeze")) v.frozen = 1;
    }
    void save(Machine &m, Cpu &, int g) override {
        Vcpu &v = m.w.vcpu[g];
        m.show(BY_STATE, v.image, v.control, v.lost);
    }
    void restore(Machine &m, Cpu &, int g) override {
        Vcpu &v = m.w.vcpu[g];
        v.image = m.seen.bank, v.control = m.seen.control, v.lost = m.seen.cut, v.uses = 1;
    }
    bool traced(Machine &m, Cpu &c) override {
        return c.owner == HOST && m.running_on(c).traces_guests();
    }
    bool exits(Machine &m, Cpu &, int g, Instruction what) override {
        const Vcpu &v = m.w.vcpu[g];
        if (what == XSAVES || what == XRSTORS) return v.xsaves_exit;
        if (what == PEBS || (what == ACKNOWLEDGE && mediated)) return false;
        if (lazy && (what == ENABLE || what == DISABLE || what == USER_FILTER)) return true;
        return what >= INIT || !v.passthrough;
    }
};

// perf asks, and is served at the next VM entry or vcpu_put.
struct Request : Owned {
    Request() { guest_may_be_short = entry_serves = true; }

    bool safe_point(Machine &m, Cpu &c, int g, int part) override {
        if (part == 0 && !(c.wanted && c.owner == GUEST + g)) return true;
        return take_from_guest(m, c, g, part, true);
    }
    bool asked(Machine &, Cpu &c, int) override { return c.wanted && !has("no-recheck"); }
    bool prepare(Machine &m, Cpu &c, int g, int) override {
        Vcpu &v = m.w.vcpu[g];
        if (c.owner == EMPTY && wants(v)) give_to_guest(c, g, v);
        if (c.owner == GUEST + g) let_in(m, c, v);
        else keep_out(m, c, v);
        return true;
    }
};

// The guest has them from vcpu_load to vcpu_put; lazily, if LBREn is set, and from the entry after
// it was set.
struct Mediated : Owned {
    Mediated() { refuses_tracing = mediated = true; }

    // With the counters goes their status: what has overflowed is forgotten, and LBR_FRZ.
    void switch_status(Cpu &c) {
        if (c.attached) detach(c), c.wanted = 1;
        c.overflowed = 0;
        if (!has("status-kept")) c.regs.frozen = 0;
    }

    bool load(Machine &m, Cpu &c, int g, int part) override {
        if (part == 0) {
            c.interrupts = 0;
            switch_status(c);
            return false;
        }
        if (!lazy || wants(m.w.vcpu[g])) give_to_guest(c, g, m.w.vcpu[g]);
        c.interrupts = 1;
        return true;
    }
    bool prepare(Machine &m, Cpu &c, int g, int part) override {
        Vcpu &v = m.w.vcpu[g];
        if (lazy && part == 0 && c.attached) return switch_status(c), false;
        if (lazy && c.owner == EMPTY && wants(v)) give_to_guest(c, g, v);
        if (lazy && c.owner == EMPTY) keep_out(m, c, v);
        else let_in(m, c, v);
        return true;
    }
    bool put(Machine &m, Cpu &c, int g, int part) override {
        if (!lazy || part > 0 || c.owner != EMPTY) return Owned::put(m, c, g, part);
        if (m.running_on(c).hosts) attach(m, c);
        return true;
    }
};

// The guest has them from VM entry to VM exit, whether it uses them or not.
struct MediatedMerged : Mediated {
    bool load(Machine &, Cpu &, int, int) override { return true; }
    bool put(Machine &m, Cpu &c, int g, int part) override { return Owned::put(m, c, g, part); }

    bool prepare(Machine &m, Cpu &c, int g, int part) override {
        Vcpu &v = m.w.vcpu[g];
        if (part == 0) return switch_status(c), false;
        if (lazy && !wants(v)) return keep_out(m, c, v), true;
        give_to_guest(c, g, v);
        let_in(m, c, v);
        return true;
    }
    bool take_back(Machine &m, Cpu &c, int g, int part) override {
        if (part == 0) Owned::take_back(m, c, g, 0);
        if (part == 0 && c.owner == EMPTY) {
            if (m.running_on(c).hosts) attach(m, c);
            return true;
        }
        return take_from_guest(m, c, g, part, false);
    }
};

// Both have them while they run: swapped at entry and exit while both record.
struct Lease : Request {
    Lease() { guest_has_flag = host_has_flag = true; }

    void attach(Machine &m, Cpu &c) override {
        Stash &stash = c.events.stash;
        if (stash.valid) {
            c.regs.bank = stash.bank, c.regs.control = stash.control;
            if (c.stash_frozen && !has("thawed-image")) c.regs.frozen = 1;
        } else if (!has("silent-cut")) {
            c.cut |= c.wanted;
        }
        stash = Stash{}, c.stash_frozen = 0;
        Owned::attach(m, c);
    }
    void events_changed(Machine &m, Cpu &c, const Running &now) override {
        if (!now.hosts) {
            c.cut = c.stash_frozen = 0;
            if (!has("keep-host-image")) c.events.stash = Stash{};
        }
        Owned::events_changed(m, c, now);
    }
    bool prepare(Machine &m, Cpu &c, int g, int part) override {
        Running now = m.running_on(c);
        bool conflict = now.hosts && now.traces_guests();
        if (part == 0 && wants(m.w.vcpu[g]) && c.owner == HOST && !conflict) {
            m.touch(c, HOST);
            if (!has("late-grant-revoke")) c.attached = 0;
            c.regs.control = c.programmed = 0;
            c.events.stash = Stash{1, c.regs.control, c.regs.bank};
            wipe(c);
            c.owner = EMPTY;
            return false;
        }
        return Request::prepare(m, c, g, part);
    }
    bool take_back(Machine &m, Cpu &c, int g, int part) override {
        if (part == 0) {
            Owned::take_back(m, c, g, 0);
            if (c.owner != GUEST + g || !m.running_on(c).hosts || has("no-swap-back")) return true;
        }
        return take_from_guest(m, c, g, part, false);
    }
    bool exits(Machine &m, Cpu &c, int g, Instruction what) override {
        return (what == DEPTH && m.w.vcpu[g].lost) || Owned::exits(m, c, g, what);
    }
};

// A guest has them while it is inside and has LBREn set; elsewhere its accesses go to the image.
// `uses` is the bit of the image's XSTATE_BV.
struct MediatedArchLbr : MediatedMerged {
    void clear_for_next(Cpu &c) {
        if (has("ler-kept")) c.regs.bank.clear_records();
        else c.regs.initialise();
    }
    void perf_leaves(Cpu &c) {
        c.attached = c.programmed = c.regs.control = 0;
        if (!has("records-left")) clear_for_next(c);
        c.owner = EMPTY;
    }
    void events_changed(Machine &m, Cpu &c, const Running &now) override {
        if (now.newcomer && has("records-left")) c.regs.bank.clear_records();
        if (now.hosts) return Owned::events_changed(m, c, now);
        if (c.attached) perf_leaves(c);
        c.wanted = 0;
    }

    bool prepare(Machine &m, Cpu &c, int g, int part) override {
        Vcpu &v = m.w.vcpu[g];
        if (part == 0) {
            if (c.attached) perf_leaves(c), c.wanted = 1;
            c.overflowed = c.regs.frozen = 0;
            return false;
        }
        if (v.passthrough) {
            c.owner = GUEST + g, v.image_control = 0;
            c.regs.initialise();
            if (v.uses) c.regs.bank = v.image;
        }
        if (m.host_freezes) v.snapshot = c.regs.debugctl;
        if (v.frozen) c.regs.frozen = 1;
        v.pebs_lbrs = v.passthrough || has("guest-pebs-lbrs");
        v.xsaves_exit = !v.passthrough && !has("no-xss-exiting");
        v.entry_debugctl = v.debugctl, v.entry_control = v.control, v.load = v.clear = 1;
        return true;
    }
    bool take_back(Machine &m, Cpu &c, int g, int part) override {
        Vcpu &v = m.w.vcpu[g];
        if (part == 0) {
            v.control = v.entry_control, v.entry_control = v.entry_debugctl = 0;
            v.frozen = c.regs.frozen, c.regs.frozen = 0;
            if (m.host_freezes) c.regs.debugctl = v.snapshot, v.snapshot = 0;
        }
        if (part == 0 && v.passthrough) {
            m.touch(c, GUEST + g);
            v.uses = !c.regs.bank.empty() || !c.regs.bank.ler.empty();
            if (v.uses || !has("no-xstate-bv")) v.image = c.regs.bank;
            v.image_control = 0;
            return false;
        }
        if (part == 1) return clear_for_next(c), c.owner = EMPTY, false;
        if (m.running_on(c).hosts) attach(m, c);
        return true;
    }
    void inject_pmi(Machine &m, Cpu &, int g) override {
        Vcpu &v = m.w.vcpu[g];
        if (v.passthrough && v.debugctl & DEBUG_FREEZE) v.frozen = 1;
    }
    void sample(Machine &m, Cpu &c) override {
        read_for_host(m, c, c.attached && m.running_on(c).handled);
        c.stash_frozen = 0;
        if (c.attached) c.regs.frozen = 0;  // else the PMU is the guest's
    }
    bool emulate(Machine &m, Cpu &c, int g, int part, Instruction what) override {
        Vcpu &v = m.w.vcpu[g];
        Byte valid = v.uses;
        if (what == RESET && has("reset-keeps-image")) {
            v.control = v.debugctl = v.smm = v.smm_control = 0;
            v.pmi = v.frozen = v.level2 = v.vmcs12_control = v.vmcs12_debugctl = 0;
            return true;
        }
        Owned::emulate(m, c, g, part, what);
        if (what == WRITE) valid |= !has("no-xstate-bv");
        if (what == XRSTORS) valid = 1;
        if (what == RESET) valid = v.passthrough = 0;
        if (what == DISABLE) v.passthrough = 0;
        if (v.control & EN) v.passthrough = 1;
        v.uses = valid;
        return true;
    }
    void save(Machine &m, Cpu &c, int g) override {
        Owned::save(m, c, g);
        if (has("no-ler-saved")) m.seen.bank.ler = Record{};
    }
    void restore(Machine &m, Cpu &c, int g) override {
        Owned::restore(m, c, g);
        Vcpu &v = m.w.vcpu[g];
        v.lost = 0, v.passthrough = v.control & EN, v.uses = !has("no-xstate-bv");
    }
    bool exits(Machine &m, Cpu &, int g, Instruction what) override {
        const Vcpu &v = m.w.vcpu[g];
        if (what == XSAVES || what == XRSTORS) return v.xsaves_exit;
        if (what == READ || what == WRITE) return !v.passthrough;
        return what != PEBS && what != ACKNOWLEDGE;
    }
};
