// What a design of sharing must answer, and what it may tell the spectator.
#pragma once
#include <set>
#include <string>

#include "perf.h"

enum Instruction : Byte { INTERRUPT, READ, ENABLE, DISABLE, WRITE, DEPTH, XSAVES, USER_FILTER, INIT,
                          SMI, RSM, DEBUG, XRSTORS, RESET, LAUNCH, LAUNCH_CONTROLS, CALL_L1,
                          SET_DEBUGCTL, SET_FREEZE, COUNTER, ACKNOWLEDGE, HOST_COUNTER, PEBS };

enum Exposure : Byte { NOT_EXPOSED, BY_MSR, BY_XSAVES, BY_STATE, BY_RECORD, BY_SAMPLE };

struct Seen {  // what the last step exposed
    Exposure exposure = NOT_EXPOSED;
    int guest = -1;                   // whose exposure
    Instruction retired = INTERRUPT;  // of `guest`
    Bank bank{};
    Byte control = 0;
    bool cut = false;
    bool misuse = false, ignored = false, twice = false;  // P6, P22, P23
};

struct Machine {
    World w{};
    Size size{};
    bool legacy = false;
    bool host_freezes = false;      // perf sets FREEZE_LBRS_ON_PMI with architectural LBRs
    Seen seen{};

    Context &context(Cpu &c) { return c.task ? w.thread[c.task - 1] : c.host_task; }
    Running running_on(Cpu &c) { return running(c.events, context(c)); }
    // perf turns its LBRs on.  A call stack is not frozen.
    void program(Cpu &c, const Running &now) const {
        c.regs.control = c.programmed = control_for(now);
        if (!host_freezes) return;
        c.asks_freeze = !now.call_stack();
        c.regs.debugctl = c.asks_freeze ? DEBUG_FREEZE : 0;
    }
    void touch(const Cpu &c, Byte owner) { seen.misuse |= c.owner != owner; }
    void show(Exposure exposure, const Bank &bank, Byte control, bool cut) {
        seen.exposure = exposure, seen.bank = bank, seen.control = control, seen.cut = cut;
    }
};

inline Byte written(Instruction instruction, Byte old, bool legacy) {
    if (legacy) return instruction == USER_FILTER ? NO_KERNEL : old;
    return instruction == ENABLE ? CTL_ALL : instruction == USER_FILTER ? CTL_USER : 0;
}

// A hypervisor in a guest enters a guest of its own, and is exited to.  The records have no VMCS
// field; L0 sees to the control register alone.
inline void enter_l2(Vcpu &v, bool controls, bool legacy, bool no_load = false) {
    v.level2 = controls ? LEVEL2_CONTROLS : LEVEL2;
    if (controls && !no_load) (legacy ? v.debugctl : v.control) = v.vmcs12_control;
}

inline void exit_to_l1(Vcpu &v, bool legacy, bool no_clear = false) {
    bool controls = v.level2 == LEVEL2_CONTROLS;
    Byte &control = legacy ? v.debugctl : v.control;
    if (controls || !legacy) v.vmcs12_control = control;
    if ((controls || legacy) && !no_clear) control = 0;
    v.debugctl = 0, v.level2 = LEVEL1;
}

// A hook that takes several steps is called with the number of the step and says whether it was
// its last.  `g` is the vCPU of the thread that runs on `c`.
struct Design {
    std::set<std::string> flaws{};
    bool legacy = false;
    bool guest_may_be_short = false, guest_has_flag = false;
    bool host_may_be_short = false, host_has_flag = false;
    bool entry_serves = false, refuses_tracing = false, mediated = false;
    bool freeze_clears_enable = false;
    bool lazy = false;              // a guest has them from LBREn = 1, not from its first access
    bool keeps_debugctl = false;    // of a legacy guest, when user space saves it

    // Are a guest's adaptive PEBS records offered the LBR group?
    virtual bool offers_pebs() const { return has("pebs-baseline"); }
    Sharing sharing{};

    virtual ~Design() = default;
    bool has(const char *flaw) const { return flaws.count(flaw) != 0; }

    virtual void events_changed(Machine &, Cpu &, const Running &) {}
    virtual void task_leaves(Machine &, Cpu &) {}
    virtual void task_comes(Machine &, Cpu &) {}
    virtual bool load(Machine &, Cpu &, int, int) { return true; }
    virtual bool put(Machine &, Cpu &, int, int) { return true; }
    virtual bool safe_point(Machine &, Cpu &, int, int) { return true; }
    virtual bool asked(Machine &, Cpu &, int) { return false; }
    virtual bool prepare(Machine &, Cpu &, int, int) { return true; }
    virtual bool take_back(Machine &, Cpu &, int, int) { return true; }
    virtual bool emulate(Machine &, Cpu &, int, int, Instruction) { return true; }
    virtual void guest_pmi(Machine &, Cpu &, int) {}
    virtual void inject_pmi(Machine &, Cpu &, int) {}
    virtual void sample(Machine &, Cpu &) {}
    virtual void pebs_sample(Machine &, Cpu &) {}
    virtual void save(Machine &, Cpu &, int) {}
    virtual void restore(Machine &, Cpu &, int) {}
    virtual bool traced(Machine &, Cpu &) { return false; }
    virtual bool exits(Machine &, Cpu &, int, Instruction) { return true; }
};
