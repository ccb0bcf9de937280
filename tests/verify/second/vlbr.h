// kvm-legacy and arch-lbr-v2: an event pinned to the vCPU's thread stands for the guest.
#pragma once
#include "design.h"

struct Vlbr : Design {
    bool late_freeze = false;

    Vlbr() { freeze_clears_enable = true; }

    Event *event(Machine &m, int g) {
        for (Event &event : m.w.thread[g].event)
            if (event.flags & VLBR) return &event;
        return nullptr;
    }
    bool active(Machine &m, int g) {
        Event *own = event(m, g);
        return own && own->state == RUNNING;
    }
    void create(Machine &m, Cpu &c, int g) {
        if (event(m, g)) return;
        Context &context = m.w.thread[g];
        Running before = m.running_on(c);
        context.stash = Stash{};
        open_event(context, PINNED | EXCLUDE_HOST | VLBR | CALL_STACK | USER_ONLY);
        events_changed(m, c, schedule(c.events, &context, sharing, before));
    }
    void release(Machine &m, Cpu &c, int g) {
        Event *own = event(m, g);
        if (!own) return;
        Running before = m.running_on(c);
        *own = Event{};
        m.w.thread[g].stash = Stash{};
        events_changed(m, c, schedule(c.events, &m.context(c), sharing, before));
    }

    virtual void reset(Machine &m, Cpu &c) {
        c.regs.bank.clear_records();
        if (legacy && m.running_on(c).vlbr) c.regs.control = 0;
    }
    void enable(Machine &m, Cpu &c, const Running &now) {
        if (legacy) {
            c.programmed = now.call_stack() ? DEBUG_LBR : Byte(DEBUG_LBR | DEBUG_FREEZE);
            c.regs.control = now.call_stack() ? SELECT_STACK
                             : now.asked & USER_ONLY ? NO_KERNEL : 0;
            c.regs.debugctl |= c.programmed;
        } else {
            m.program(c, now);
        }
    }
    void disable(Cpu &c) {
        c.programmed = 0;
        (legacy ? c.regs.debugctl : c.regs.control) = 0;
    }

    void events_changed(Machine &m, Cpu &c, const Running &now) override {
        if (c.programmed) disable(c);
        if (now.newcomer) reset(m, c);
        if (now.hosts && !now.vlbr) enable(m, c, now);
        c.attached = now.hosts != 0;
        c.owner = now.vlbr ? Byte(GUEST + c.task - 1) : now.hosts ? HOST : EMPTY;
    }
    void task_leaves(Machine &m, Cpu &c) override {
        Context &context = m.context(c);
        Running before = m.running_on(c);
        if (before.users) {
            context.stash = Stash{};
            if (before.vlbr || before.call_stack()) {
                context.stash = Stash{1, c.regs.control, c.regs.bank};
                if (legacy) keep_up_to_the_first_empty(context.stash.bank);
            }
        }
        stop_all(context);
        Running now = schedule(c.events, nullptr, sharing, before);
        now.newcomer = false;
        events_changed(m, c, now);
    }
    static void keep_up_to_the_first_empty(Bank &bank) {
        bool gone = false;
        for (Record &record : bank.at)
            if (gone |= record.empty(); gone) record = Record{};
        bank.ler = Record{};
    }
    void task_comes(Machine &m, Cpu &c) override {
        Context &context = m.context(c);
        Running now = schedule(c.events, &context, sharing, m.running_on(c));
        events_changed(m, c, now);
        if (!now.users) return;
        if (!(now.vlbr || now.call_stack()) || !context.stash.valid) {
            reset(m, c);
        } else if (legacy) {
            c.regs.bank.at = context.stash.bank.at;
            c.regs.control = context.stash.control;
        } else {
            c.regs.bank = context.stash.bank;
            c.regs.control = now.vlbr ? 0 : c.programmed;
        }
        context.stash = Stash{};
    }
    void sample(Machine &m, Cpu &c) override {
        Running now = m.running_on(c);
        bool present = now.handled && !now.vlbr;
        m.show(BY_SAMPLE, present ? c.regs.bank : Bank{}, 0, false);
        c.regs.frozen = 0;
        if (present && legacy) c.regs.debugctl |= c.programmed;
    }
    void pebs_sample(Machine &m, Cpu &c) override { m.show(BY_SAMPLE, c.regs.bank, 0, false); }
    // intel_pmu_deliver_pmi, for a vPMU of version 2 or 3.
    void freeze(Vcpu &v) {
        if (!(v.debugctl & DEBUG_FREEZE)) return;
        if (legacy) v.debugctl &= ~DEBUG_LBR;
        else v.control &= ~EN;
    }
    void guest_pmi(Machine &m, Cpu &c, int g) override {
        c.regs.frozen = 0;
        m.w.vcpu[g].pmi = 1;
        if (!late_freeze) freeze(m.w.vcpu[g]);
    }
    void inject_pmi(Machine &m, Cpu &, int g) override {
        if (late_freeze) freeze(m.w.vcpu[g]);
    }
    bool traced(Machine &m, Cpu &c) override {
        Running now = m.running_on(c);
        return now.hosts && !now.vlbr && now.traces_guests();
    }
    bool load(Machine &m, Cpu &, int g, int) override {
        m.w.vcpu[g].cleanup = event(m, g) != nullptr;
        return true;
    }
    bool safe_point(Machine &m, Cpu &c, int g, int) override {
        Vcpu &v = m.w.vcpu[g];
        bool records = legacy ? v.debugctl & DEBUG_LBR : v.control & EN;
        if (v.cleanup && !records) release(m, c, g);
        v.cleanup = 0;
        return true;
    }
    void access(Machine &m, Cpu &c, int g, Instruction what, bool real) {
        if (real) m.touch(c, GUEST + g);
        if (what == READ || what == XSAVES) {
            Byte control = !legacy ? m.w.vcpu[g].control : real ? c.regs.control : 0;
            m.show(what == READ ? BY_MSR : BY_XSAVES, real ? c.regs.bank : Bank{}, control, false);
        } else if (what == WRITE && real) {
            c.regs.bank.at[0] = c.operand;
        } else if (what == DEPTH && real) {
            c.regs.bank.clear_records();
        } else if (what == XRSTORS && real) {
            c.regs.restore(c.operand);
        }
    }
    // intel_pmu_reset releases the event; the next one starts with empty records.
    void vpmu_reset(Machine &m, Cpu &c, int g) {
        release(m, c, g);
        Vcpu &v = m.w.vcpu[g];
        v.control = v.debugctl = v.smm = v.smm_control = 0;
        v.pmi = v.level2 = v.vmcs12_control = v.vmcs12_debugctl = v.other_control = 0;
    }
};

struct KvmLegacy : Vlbr {
    explicit KvmLegacy(bool designed, bool keeps_debugctl_ = false) {
        keeps_debugctl = keeps_debugctl_;
        legacy = late_freeze = true;
        sharing.vlbr_is_filtered = designed;
    }
    bool load(Machine &m, Cpu &c, int g, int part) override {
        if (has("stale-snapshot")) m.w.vcpu[g].snapshot = c.regs.debugctl;
        return Vlbr::load(m, c, g, part);
    }
    bool prepare(Machine &m, Cpu &c, int g, int) override {
        Vcpu &v = m.w.vcpu[g];
        if (!has("stale-snapshot")) v.snapshot = c.regs.debugctl;
        v.passthrough = active(m, g);
        v.pebs_lbrs = offers_pebs();
        v.entry_debugctl = v.debugctl;
        return true;
    }
    bool take_back(Machine &m, Cpu &c, int g, int) override {
        Vcpu &v = m.w.vcpu[g];
        if (has("host-pmi-freezes")) v.debugctl = v.entry_debugctl;
        v.entry_debugctl = 0;
        if (v.snapshot) c.regs.debugctl = v.snapshot;
        if (!has("stale-snapshot")) v.snapshot = 0;
        return true;
    }
    bool emulate(Machine &m, Cpu &c, int g, int part, Instruction what) override {
        Vcpu &v = m.w.vcpu[g];
        if (what == ENABLE || what == DISABLE) {
            v.debugctl = (v.debugctl & DEBUG_FREEZE) | (what == ENABLE ? DEBUG_LBR : 0);
            if (what == ENABLE) create(m, c, g);
            return true;
        }
        if (what == COUNTER || what == INIT || what == DEBUG) return true;
        if (what == SET_FREEZE) return v.debugctl |= DEBUG_FREEZE, true;
        if (what == RESET) return vpmu_reset(m, c, g), true;
        if (what == LAUNCH || what == LAUNCH_CONTROLS)
            return enter_l2(v, what == LAUNCH_CONTROLS, true), true;
        if (what == CALL_L1) return exit_to_l1(v, true), true;
        if (part == 0) return create(m, c, g), false;
        if (part == 1) c.noted = active(m, g);
        if (part == 1 && has("check-with-irqs-on")) return false;
        access(m, c, g, what, c.noted);
        if (what == USER_FILTER && c.noted) m.touch(c, GUEST + g), c.regs.control = NO_KERNEL;
        c.noted = 0;
        return true;
    }
    bool exits(Machine &m, Cpu &, int g, Instruction what) override {
        if (what == PEBS) return false;
        return what == ENABLE || what == DISABLE || what >= INIT || !m.w.vcpu[g].passthrough;
    }
    void save(Machine &m, Cpu &c, int g) override {
        m.show(BY_STATE, Bank{}, 0, false);
        release(m, c, g);
    }
    void restore(Machine &m, Cpu &c, int g) override {
        if (m.w.vcpu[g].debugctl & DEBUG_LBR) create(m, c, g);
    }
};

struct ArchLbrV2 : Vlbr {
    void reset(Machine &m, Cpu &c) override {
        Vlbr::reset(m, c);
        if (!has("ler-kept")) c.regs.bank.ler = Record{};
    }
    bool load(Machine &m, Cpu &c, int g, int part) override {
        if (m.host_freezes && has("stale-debugctl")) m.w.vcpu[g].snapshot = c.regs.debugctl;
        return has("lazy-release") ? Vlbr::load(m, c, g, part) : true;
    }
    bool prepare(Machine &m, Cpu &c, int g, int) override {
        Vcpu &v = m.w.vcpu[g];
        Running now = m.running_on(c);
        bool anyway = has("ctl-loaded-when-reclaimed");
        if (m.host_freezes && !has("stale-debugctl")) v.snapshot = c.regs.debugctl;
        v.passthrough = active(m, g);
        v.pebs_lbrs = offers_pebs();
        v.xsaves_exit = !v.passthrough && !has("no-xss-exiting");
        v.load = !has("no-entry-load"), v.clear = 1;
        v.entry_control = v.passthrough || anyway ? v.control : 0;
        v.entry_debugctl = v.debugctl;
        if (now.hosts && !now.vlbr && now.traces_guests()) v.load = v.clear = anyway;
        return true;
    }
    bool take_back(Machine &m, Cpu &c, int g, int) override {
        Vcpu &v = m.w.vcpu[g];
        v.entry_control = v.entry_debugctl = 0;
        if (v.snapshot) c.regs.debugctl = v.snapshot;
        if (!has("stale-debugctl")) v.snapshot = 0;
        if (c.programmed && !has("exit-clear-always")) c.regs.control = c.programmed;
        return true;
    }
    // The controls are hidden from L1: its VM entry with them fails.
    void nested(Vcpu &v, Instruction what) {
        if (what == LAUNCH_CONTROLS && !has("nested-dropped")) return;
        if (has("ctl-in-vmcs")) std::swap(v.control, v.other_control);
        if (what == CALL_L1) exit_to_l1(v, false);
        else enter_l2(v, false, false);
    }
    bool emulate(Machine &m, Cpu &c, int g, int part, Instruction what) override {
        Vcpu &v = m.w.vcpu[g];
        switch (what) {
        case READ: case WRITE: case XSAVES: case XRSTORS: case DEPTH: {
            if (part == 0) return create(m, c, g), false;
            bool raw = what == DEPTH ? has("depth-outside-check")
                                     : has("raw-data-msrs") && (what == READ || what == WRITE);
            access(m, c, g, what, raw || active(m, g));
            break;
        }
        case INIT:
            if (has("init-clears")) v.control &= ~EN;
            break;
        case SMI:
            v.smm = 1, v.smm_control = has("rsm-clobber") ? v.control : v.control & EN;
            v.control &= ~EN;
            break;
        case RSM:
            v.control = has("rsm-clobber") ? v.smm_control : Byte(v.control | v.smm_control);
            v.smm = v.smm_control = 0;
            break;
        case DEBUG:
            if (!has("db-in-nmi-path")) v.control &= ~EN;
            break;
        case RESET: vpmu_reset(m, c, g); break;
        case SET_DEBUGCTL: v.vmcs12_debugctl = has("vmcs12-debugctl") ? DEBUG_LBR : 0; break;
        case LAUNCH: case LAUNCH_CONTROLS: case CALL_L1: nested(v, what); break;
        case SET_FREEZE: v.debugctl |= DEBUG_FREEZE; break;
        case INTERRUPT: case COUNTER: case HOST_COUNTER: case ACKNOWLEDGE: case PEBS: break;
        case ENABLE: case DISABLE: case USER_FILTER:
            v.control = written(what, v.control, false);
            if (v.control & EN) create(m, c, g);
        }
        return true;
    }
    bool exits(Machine &m, Cpu &, int g, Instruction what) override {
        const Vcpu &v = m.w.vcpu[g];
        if (what == XSAVES || what == XRSTORS) return v.xsaves_exit;
        if (what == PEBS) return false;
        return !(what == READ || what == WRITE) || !v.passthrough;
    }
    void save(Machine &m, Cpu &c, int g) override {
        Bank bank = active(m, g) ? c.regs.bank : Bank{};
        if (has("no-data-msrs-saved")) bank.clear_records();
        m.show(BY_STATE, bank, m.w.vcpu[g].control, false);
        release(m, c, g);
    }
    void restore(Machine &m, Cpu &c, int g) override {
        m.w.vcpu[g].control = m.seen.control;
        create(m, c, g);
        if (active(m, g)) c.regs.bank = m.seen.bank, c.regs.control = 0;
    }
};
