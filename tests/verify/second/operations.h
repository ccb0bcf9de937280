// Operations as lists of steps (pylbr/arbitration/microsteps.pxd).  An IPI may come between two of them where
// interrupts are on, an NMI between any two.
#pragma once
#include "design.h"

inline void vm_entry(Cpu &c, const Vcpu &v, bool legacy) {
    c.regs.debugctl = v.entry_debugctl;
    if (!legacy && v.load) c.regs.control = v.entry_control;
}

inline void vm_exit(Cpu &c, Vcpu &v, bool legacy) {
    v.entry_debugctl = c.regs.debugctl;
    c.regs.debugctl = 0;
    if (legacy) return;
    v.entry_control = c.regs.control;
    if (v.clear) c.regs.control = 0;
}

// The handler of the host's counters reads the records and acknowledges.
inline void handler(Machine &m, Cpu &c, Design &design) {
    design.sample(m, c);
    c.overflowed = 0;
}

// PMI: the records freeze at the overflow, now or before.  Counters stand still while a mediated
// guest has the PMU.
inline void pmi(Machine &m, Cpu &c, Design &design) {
    if (!c.overflowed && (c.attached || !design.mediated)) c.regs.freeze(m.legacy);
    handler(m, c, design);
}

inline void begin(Cpu &c, Step step, Byte arg) {
    c.doing.push_back({step, 0, arg});
    if (step >= IPI_OPEN && step <= IPI_ROTATED) c.interrupts = 0;
}

inline void advance(Machine &m, Cpu &c, Design &design) {
    Activity &now = c.doing.back();
    int g = c.task - 1;
    bool over = false;
    auto go = [&](Step step) { now.step = step, now.part = 0; };
    // A step in parts: behind its last comes `step`.
    auto after = [&](bool last, Step step) {
        if (last) go(step);
        else now.part++;
        return last;
    };
    auto reschedule = [&](const Running &before) {
        design.events_changed(m, c, schedule(c.events, &m.context(c), design.sharing, before));
    };

    switch (now.step) {
    case SWITCH_OUT:
        c.interrupts = 0;
        design.task_leaves(m, c);
        go(c.task ? SWITCH_PUT : SWITCH_IN);
        break;
    case SWITCH_PUT:
        if (after(design.put(m, c, g, now.part), SWITCH_IN)) m.seen.ignored |= c.wanted;
        break;
    case SWITCH_IN:
        c.task = now.arg;
        design.task_comes(m, c);
        go(SWITCH_ON);
        break;
    case SWITCH_ON:
        c.interrupts = 1;
        over = c.task == 0;
        go(SWITCH_LOAD);
        break;
    case SWITCH_LOAD:
        over = after(design.load(m, c, g, now.part), SWITCH_LOAD);
        break;

    case ENTER_SAFE:
        if (after(design.safe_point(m, c, g, now.part), ENTER_LOOK) && m.w.vcpu[g].pmi) {
            design.inject_pmi(m, c, g);
            m.w.vcpu[g].pmi = 0;
        }
        break;
    case ENTER_LOOK:
        if (design.asked(m, c, g)) {
            go(ENTER_SAFE);
        } else {
            c.interrupts = 0;
            go(ENTER_PREPARE);
        }
        break;
    case ENTER_PREPARE:
        after(design.prepare(m, c, g, now.part), ENTER_GO);
        break;
    case ENTER_GO:
        m.seen.ignored |= c.wanted && design.entry_serves;
        vm_entry(c, m.w.vcpu[g], m.legacy);
        c.guest = c.task;
        over = true;
        break;

    case EXIT_OUT:
        if (now.arg == COUNTER || (now.arg == HOST_COUNTER && !c.overflowed))
            c.regs.freeze(m.legacy);
        vm_exit(c, m.w.vcpu[g], m.legacy);
        c.guest = 0;
        go(EXIT_TAKE);
        break;
    case EXIT_TAKE:
        after(design.take_back(m, c, g, now.part), EXIT_ON);
        break;
    case EXIT_ON:
        if (now.arg == HOST_COUNTER || (now.arg == COUNTER && c.overflowed)) handler(m, c, design);
        if (now.arg == COUNTER) design.guest_pmi(m, c, g);
        c.interrupts = 1;
        over = now.arg == INTERRUPT || now.arg == HOST_COUNTER;
        go(EXIT_EMULATE);
        break;
    case EXIT_EMULATE:
        over = after(design.emulate(m, c, g, now.part, Instruction(now.arg)), EXIT_EMULATE);
        if (over) m.seen.guest = g, m.seen.retired = Instruction(now.arg);
        break;

    case IPI_OPEN: {
        Running before = m.running_on(c);
        Context &where = now.arg & ON_TASK ? m.context(c) : c.events;
        if (now.arg & EXCLUDE_GUEST || !design.refuses_tracing)
            open_event(where, now.arg & ~ON_TASK);
        reschedule(before);
        go(IPI_OPENED);
        break;
    }
    case IPI_CLOSE: {
        Running before = m.running_on(c);
        Context &where = now.arg & ON_TASK ? m.context(c) : c.events;
        where.event[now.arg & ~ON_TASK] = Event{};
        reschedule(before);
        go(IPI_CLOSED);
        break;
    }
    case IPI_ENABLE: {
        Running before = m.running_on(c);
        Context &where = now.arg & ON_TASK ? m.context(c) : c.events;
        where.event[now.arg & ~ON_TASK].state = WAITING;
        reschedule(before);
        go(IPI_ENABLED);
        break;
    }
    case IPI_ROTATE: {  // the timer's, not another CPU's
        Running before = m.running_on(c);
        rotate(c.events), rotate(m.context(c));
        reschedule(before);
        go(IPI_ROTATED);
        break;
    }
    case IPI_OPENED: case IPI_CLOSED: case IPI_ENABLED: case IPI_ROTATED:
        c.interrupts = 1;
        over = true;
        break;

    case MIGRATE_PUT:
        after(design.put(m, c, g, now.part), MIGRATE_MOVE);
        break;
    case MIGRATE_MOVE: {
        design.save(m, c, g);
        m.seen.guest = g;
        Vcpu born;
        const Vcpu &old = m.w.vcpu[g];
        born.smm = old.smm, born.smm_control = old.smm_control;  // in SMRAM
        born.pmi = old.pmi, born.frozen = old.frozen;
        if (!m.legacy || design.keeps_debugctl) born.debugctl = old.debugctl;
        born.level2 = old.level2, born.other_control = old.other_control;
        born.vmcs12_control = old.vmcs12_control, born.vmcs12_debugctl = old.vmcs12_debugctl;
        m.w.vcpu[g] = born;
        design.restore(m, c, g);
        go(MIGRATE_LOAD);
        break;
    }
    case MIGRATE_LOAD:
        over = after(design.load(m, c, g, now.part), MIGRATE_LOAD);
        break;
    }
    if (over) c.doing.pop_back();
}

// A guest's instruction that does not exit acts on the registers as they are.
inline void execute(Machine &m, Cpu &c, Instruction what) {
    int g = c.guest - 1;
    switch (what) {
    case READ: m.show(BY_MSR, c.regs.bank, c.regs.control, m.w.vcpu[g].lost); break;
    case XSAVES: m.show(BY_XSAVES, c.regs.bank, c.regs.control, m.w.vcpu[g].lost); break;
    case WRITE: c.regs.bank.at[0] = c.operand; break;
    case DEPTH: c.regs.bank.clear_records(); break;
    case XRSTORS: c.regs.restore(c.operand); break;
    case ACKNOWLEDGE: c.regs.frozen = 0; break;
    case PEBS:  // without the group the record says that it is not there
        if (m.w.vcpu[g].pebs_lbrs) m.show(BY_RECORD, c.regs.bank, 0, m.w.vcpu[g].lost);
        break;
    default: c.regs.control = written(what, c.regs.control, m.legacy);
    }
    m.seen.guest = g, m.seen.retired = what;
}
