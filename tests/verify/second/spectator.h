// What can happen, what each owner must then see, and which property is broken.
#pragma once
#include "operations.h"

enum Feature : unsigned { F_NMI = 1, F_MIGRATE = 2, F_XSAVES = 4, F_WRITE = 8, F_DEPTH = 16,
                          F_KERNEL = 32, F_FAULT = 64, F_SMM = 128, F_INIT = 256, F_DB = 512,
                          F_NMI_BRANCH = 1024, F_ROTATE = 2048, F_ENABLE = 4096,
                          F_XRSTORS = 8192, F_RESET = 16384, F_NESTED = 32768,
                          F_VPMI = 65536, F_PEBS = 131072, F_HOST_FREEZE = 262144 };

// In the order of their bits.
constexpr const char *FEATURES[] = {"nmi", "migrate", "xsaves", "write", "depth", "kernel", "fault",
                                    "smm", "init", "db", "nmi-branch", "rotate", "enable",
                                    "xrstors", "reset", "nested", "vpmi", "pebs",
                                    "host-freeze"};

enum Property { P1, P2, P3, P4, P5, P6, P7, P1N, P20, P20B, P21, P22, P23, PROPERTIES };
constexpr const char *NAMES[] = {"P1", "P2", "P3", "P4", "P5", "P6", "P7", "P1'", "P20", "P20b",
                                 "P21", "P22", "P23"};

enum Kind : Byte { STEP, HOST_BRANCH, SWITCH, ENTER, GUEST_BRANCH, INSTRUCT, LEAVE, OPEN, CLOSE,
                   PMI, STRAY, MIGRATE, REENABLE, ROTATE, HOST_PEBS, OVERFLOW };

struct Action {
    Kind kind;
    int cpu;
    Byte arg;
};

struct Spectator {
    Design &design;
    unsigned features;
    std::vector<Byte> kinds;
    int events;

    bool call_stacks() const {
        return std::any_of(kinds.begin(), kinds.end(), [](Byte kind) { return kind & CALL_STACK; });
    }

    // ------------------------------------------------------------ what can happen

    std::vector<Action> possible(Machine &m) {
        std::vector<Action> found;
        for (int i = 0; i < m.size.cpus; i++) {
            Cpu &c = m.w.cpu[i];
            auto add = [&](Kind kind, int arg = 0) { found.push_back({kind, i, Byte(arg)}); };
            auto branch = [&](Kind kind) {
                add(kind);
                if (features & F_KERNEL) add(kind, IN_KERNEL);
                if (features & F_FAULT) add(kind, FAULTS);
                if (call_stacks()) add(kind, RETURNS), add(kind, JUMPS);
            };
            bool idle = c.doing.empty();
            if (c.guest && idle) {
                branch(GUEST_BRANCH);
                if (c.overflowed) {  // its PMI comes before anything that takes long
                    add(LEAVE, HOST_COUNTER);
                    continue;
                }
                add(LEAVE);
                if (features & F_VPMI && m.running_on(c).handled && !design.mediated)
                    add(LEAVE, HOST_COUNTER);
                for (Instruction what : instructions(m.w.guest[c.guest - 1])) add(INSTRUCT, what);
                continue;
            }
            if (!idle) {
                add(STEP);
            } else {
                branch(HOST_BRANCH);
                if (c.task && !c.overflowed) {
                    add(ENTER);
                    if (features & F_MIGRATE) add(MIGRATE);
                }
                for (int task = 0; task <= m.size.guests && !c.overflowed; task++)
                    if (task != c.task && !(task && taken(m, task))) add(SWITCH, task);
            }
            if (c.interrupts && c.doing.size() < 2 && !c.overflowed) ipis(m, c, add);
            Running now = m.running_on(c);
            if ((features & F_NMI && now.handled) || c.overflowed) add(PMI);
            bool counts = now.handled && (c.attached || !design.mediated);
            if (features & F_HOST_FREEZE && counts && !c.overflowed) add(OVERFLOW);
            if (features & F_PEBS && now.hosts > now.handled) add(HOST_PEBS);
            if (features & F_NMI_BRANCH && !idle) add(STRAY);
        }
        return found;
    }

    std::vector<Instruction> instructions(const Ghost &ghost) const {
        std::vector<Instruction> list{READ};
        if (ghost.on || (ghost.smm && ghost.control)) {
            list.push_back(DISABLE);
        } else if (!ghost.smm) {
            list.push_back(ENABLE);
            if (features & F_KERNEL) list.push_back(USER_FILTER);
        }
        if (features & F_WRITE) list.push_back(WRITE);
        if (features & F_RESET) list.push_back(RESET);
        if (features & F_VPMI) list.push_back(COUNTER);
        if (features & F_PEBS && design.offers_pebs()) list.push_back(PEBS);
        if (features & F_VPMI && !ghost.freeze) list.push_back(SET_FREEZE);
        if (features & F_VPMI && ghost.frozen) list.push_back(ACKNOWLEDGE);
        if (features & F_NESTED && ghost.level2) list.push_back(CALL_L1);
        else if (features & F_NESTED && !ghost.smm)
            list.insert(list.end(), {LAUNCH, LAUNCH_CONTROLS});
        if (design.legacy) {
            if (features & F_INIT && !ghost.level2) list.push_back(INIT);
            if (features & F_DB && ghost.on && !ghost.level2) list.push_back(DEBUG);
            return list;
        }
        if (features & F_NESTED && ghost.level2) list.push_back(SET_DEBUGCTL);
        if (features & F_XRSTORS) list.push_back(XRSTORS);
        if (features & F_DEPTH) list.push_back(DEPTH);
        if (features & F_XSAVES) list.push_back(XSAVES);
        if (ghost.level2) return list;
        if (features & F_INIT) list.push_back(INIT);
        if (features & F_SMM) list.push_back(ghost.smm ? RSM : SMI);
        if (features & F_DB && ghost.on) list.push_back(DEBUG);
        return list;
    }

    // On some CPU, or about to come to one.
    static bool taken(const Machine &m, int task) {
        for (int i = 0; i < m.size.cpus; i++) {
            const Cpu &c = m.w.cpu[i];
            if (c.task == task) return true;
            if (!c.doing.empty() && c.doing[0].step <= SWITCH_LOAD && c.doing[0].arg == task)
                return true;
        }
        return false;
    }

    template <class Add> void ipis(Machine &m, Cpu &c, Add add) {
        int open = 0;
        for (bool on_task : {false, true}) {
            const Context &context = on_task ? m.context(c) : c.events;
            for (int slot = 0; slot < SLOTS; slot++) {
                const Event &event = context.event[slot];
                if (event.state == NO_EVENT || event.flags & VLBR) continue;
                open++;
                add(CLOSE, slot | (on_task ? ON_TASK : 0));
                if (features & F_ENABLE && event.state == FAILED)
                    add(REENABLE, slot | (on_task ? ON_TASK : 0));
            }
        }
        if (open < events)
            for (Byte kind : kinds) add(OPEN, kind);
        if (features & F_ROTATE && (competes(c.events) || competes(m.context(c)))) add(ROTATE);
    }

    // ------------------------------------------------------------ what the owners must see

    static void ghost_branch(Ghost &ghost, const Record &record, Byte how, bool passes, int depth) {
        if (!ghost.on || ghost.frozen) return;
        if (how & FAULTS) ghost.bank.remember_last();
        if (passes && !(how & IN_KERNEL && ghost.user_only))
            ghost.bank.take(record, how, ghost.call_stack, depth);
    }

    void host_branch(Machine &m, int cpu, Byte how, bool stray) {
        Cpu &c = m.w.cpu[cpu];
        Record record = fresh(m.w, m.size, HOST, how & IN_KERNEL);
        // What an NMI's handler runs inside an operation is in the window if perf has the
        // registers; it must be in no other's.
        if (!stray || (c.owner == HOST && c.regs.on(m.legacy)))
            ghost_branch(m.w.window[cpu], record, how, true, m.size.depth);
        c.regs.branch(record, how, m.size.depth, m.legacy);
    }

    void guest_branch(Machine &m, int cpu, Byte how) {
        Cpu &c = m.w.cpu[cpu];
        Ghost &ghost = m.w.guest[c.guest - 1];
        Record record = fresh(m.w, m.size, GUEST + c.guest - 1, how & IN_KERNEL);
        ghost_branch(ghost, record, how, m.legacy || ghost.control & CLASSES, m.size.depth);
        if (design.traced(m, c)) ghost_branch(m.w.window[cpu], record, how, true, m.size.depth);
        c.regs.branch(record, how, m.size.depth, m.legacy);
    }

    void instruct(Machine &m, Cpu &c, Instruction what) {
        int g = c.guest - 1;
        if (what == WRITE || what == XRSTORS) {
            c.operand = fresh(m.w, m.size, GUEST + g, false);
            if (what == XRSTORS) m.w.guest[g].bank.clear();
            m.w.guest[g].bank.at[0] = c.operand;
        }
        if (design.exits(m, c, g, what)) {
            begin(c, EXIT_OUT, what);
            advance(m, c, design);
        } else {
            execute(m, c, what);
        }
    }

    // The guest's own facility has done what the instruction asked.
    void retire(Machine &m, Cpu &c) {
        Ghost &ghost = m.w.guest[m.seen.guest];
        Instruction what = m.seen.retired;
        c.operand = Record{};
        switch (what) {
        case DEPTH: ghost.bank.clear_records(); break;
        case SMI: ghost.smm = 1 + (ghost.on != 0), ghost.control &= ~EN; break;
        case RSM: ghost.control |= ghost.smm == 2 ? EN : 0, ghost.smm = 0; break;
        case DEBUG:
            if (m.legacy) ghost.on = 0;
            else ghost.control &= ~EN;
            break;
        case RESET: ghost = Ghost{}; break;
        case SET_FREEZE: ghost.freeze = 1; break;
        case ACKNOWLEDGE: ghost.frozen = 0; break;
        case COUNTER:
            if (!ghost.freeze) break;
            if (!design.freeze_clears_enable) ghost.frozen = 1;
            else if (m.legacy) ghost.on = 0;
            else ghost.control &= ~EN;
            break;
        case LAUNCH: case LAUNCH_CONTROLS: case CALL_L1:
            if (what == CALL_L1 || m.w.vcpu[m.seen.guest].level2)
                change_level(ghost, what, m.legacy);
            break;
        case ENABLE: case DISABLE: case USER_FILTER:
            ghost.control = written(what, ghost.control, m.legacy);
            if (m.legacy && what != USER_FILTER) ghost.on = what == ENABLE;
            break;
        default: break;
        }
        if (m.legacy) {
            ghost.user_only = ghost.control & NO_KERNEL;
        } else {
            ghost.on = ghost.control & EN;
            ghost.user_only = ghost.on && !(ghost.control & OS);
        }
    }

    static Byte debugctl_of(const Ghost &ghost, bool legacy) {
        return (ghost.freeze ? DEBUG_FREEZE : 0) | (legacy && ghost.on ? DEBUG_LBR : 0);
    }

    // A VM entry of L1 that has not failed, or an exit to it.
    static void change_level(Ghost &ghost, Instruction what, bool legacy) {
        Byte control = legacy ? debugctl_of(ghost, true) : ghost.control;
        bool own = ghost.level2 == LEVEL2_CONTROLS;
        if (what == CALL_L1) {
            if (own || !legacy) ghost.vmcs12 = control;
            if (own || legacy) control = 0;
            ghost.level2 = LEVEL1, ghost.freeze = 0;
        } else {
            ghost.level2 = what == LAUNCH ? LEVEL2 : LEVEL2_CONTROLS;
            if (what == LAUNCH_CONTROLS) control = ghost.vmcs12;
        }
        if (!legacy) ghost.control = control;
        else ghost.on = control & DEBUG_LBR, ghost.freeze = (control & DEBUG_FREEZE) != 0;
    }

    static Ghost &kept(Machine &m, int cpu) {
        Byte task = m.w.cpu[cpu].task;
        return task ? m.w.kept[task - 1] : m.w.kept_host[cpu];
    }

    // A window begins with its first event, with another task, and with another filter; that of
    // a call stack continues where the task was left.
    static void host_window(Machine &m, int cpu, Byte old_task, const Running &before) {
        Cpu &c = m.w.cpu[cpu];
        Ghost &window = m.w.window[cpu];
        Running now = m.running_on(c);
        if (!before.hosts || c.task != old_task || now.asked != before.asked)
            window.bank.clear_records();
        if (c.task != old_task) {
            if (now.call_stack() && kept(m, cpu).on) window.bank = kept(m, cpu).bank;
            kept(m, cpu) = Ghost{};
        }
        if (!now.hosts) {
            window = Ghost{};
            return;
        }
        window.on = 1;
        window.user_only = (now.asked & USER_ONLY) != 0;
        window.call_stack = now.call_stack();
    }

    // ------------------------------------------------------------ properties

    static unsigned bit(Property property) { return 1u << property; }

    static bool incomplete(const Machine &m, const Bank &bank, const Ghost &ghost,
                           bool may_be_short, bool has_flag, bool cut) {
        bool missing = false;
        for (int i = 0; i < m.size.depth; i++) {
            if (bank.at[i] == ghost.bank.at[i]) continue;
            if (!may_be_short || !bank.at[i].empty()) return true;
            missing = true;
        }
        return missing && has_flag && !cut;
    }

    unsigned exposed_by(const Machine &m, int g, Exposure exposure, const Bank &bank,
                        Byte control, bool cut) {
        const Ghost &ghost = m.w.guest[g];
        unsigned broken = 0;
        if (incomplete(m, bank, ghost, design.guest_may_be_short, design.guest_has_flag, cut))
            broken |= bit(P21) | bit(P1N);
        if (cut && !design.guest_has_flag) broken |= bit(P1N);
        auto look = [&](const Record &record, const Record &wanted) {
            if (record.who == HOST) broken |= bit(P1);
            else if (!record.empty() && record.who != GUEST + g) broken |= bit(P2);
            else if (record.kernel && ghost.user_only && record != wanted) broken |= bit(P3);
        };
        for (int i = 0; i < m.size.depth; i++) look(bank.at[i], ghost.bank.at[i]);
        if (exposure == BY_RECORD) return broken;   // has neither LER nor the control
        if (exposure != BY_MSR) {
            look(bank.ler, ghost.bank.ler);
            bool excused = design.guest_may_be_short && bank.ler.empty();
            if (!m.legacy && bank.ler != ghost.bank.ler && !excused) broken |= bit(P7);
        }
        if (control != ghost.control) broken |= bit(P5) | bit(P1N);
        return broken;
    }

    unsigned at_sample(Machine &m, int cpu) {
        const Ghost &window = m.w.window[cpu];
        Running now = m.running_on(m.w.cpu[cpu]);
        unsigned broken = 0;
        if (incomplete(m, m.seen.bank, window, design.host_may_be_short, design.host_has_flag,
                       m.seen.cut))
            broken |= bit(P21);
        for (int i = 0; i < m.size.depth; i++) {
            const Record &record = m.seen.bank.at[i];
            if (record.who >= GUEST && (now.asked & EXCLUDE_GUEST || record != window.bank.at[i]))
                broken |= bit(P4);
            if (now.asked & USER_ONLY && record.kernel) broken |= bit(P3);
        }
        return broken;
    }

    unsigned everywhere(Machine &m) {
        unsigned broken = 0;
        for (int g = 0; g < m.size.guests; g++)  // L1 may look; bit 0 always reads 0
            if (!m.w.vcpu[g].level2 && m.w.vcpu[g].vmcs12_debugctl & DEBUG_LBR) broken |= bit(P5);
        for (int i = 0; i < m.size.cpus; i++) {
            Cpu &c = m.w.cpu[i];
            const Bank &bank = c.regs.bank;
            bool clean = bank.empty() && bank.ler.empty() && !c.regs.on(m.legacy);
            if (c.owner >= GUEST && (c.attached || c.task != 1 + c.owner - GUEST))
                broken |= bit(P20);
            if (c.owner == EMPTY && c.attached) broken |= bit(P20);
            else if (c.owner == EMPTY && !clean) broken |= bit(P20B);
            bool pending = c.regs.frozen && !c.overflowed;
            bool freeze_lost = m.host_freezes &&
                               ((c.regs.debugctl & DEBUG_FREEZE) != 0) != (c.asks_freeze != 0);
            if (!c.guest && c.interrupts && (pending || freeze_lost)) {
                broken |= bit(P5);
            } else if (!c.guest && c.interrupts) {
                Byte wanted = c.attached ? c.programmed : 0;
                Byte mask = m.legacy ? Byte(DEBUG_LBR) : Byte(0xFF);
                Byte is = m.legacy ? c.regs.debugctl : c.regs.control;
                if ((is ^ wanted) & mask) broken |= bit(P5);
            }
            if (c.guest && c.doing.empty()) {
                const Vcpu &v = m.w.vcpu[c.guest - 1];
                const Ghost &ghost = m.w.guest[c.guest - 1];
                if (features & (F_VPMI | F_DB) && c.regs.debugctl != debugctl_of(ghost, m.legacy))
                    broken |= bit(P5);
                Byte status = design.mediated ? c.regs.frozen : v.frozen;
                if (m.host_freezes && !design.freeze_clears_enable && status != ghost.frozen)
                    broken |= bit(P5) | bit(P1N);
                if (v.passthrough)
                    broken |= exposed_by(m, c.guest - 1, BY_MSR, bank, c.regs.control, v.lost);
                if (features & F_XSAVES && !v.xsaves_exit)
                    broken |= exposed_by(m, c.guest - 1, BY_XSAVES, bank, c.regs.control, v.lost);
            }
        }
        return broken;
    }

    // ------------------------------------------------------------ all together

    unsigned happen(Machine &m, const Action &action) {
        Cpu &c = m.w.cpu[action.cpu];
        Byte old_task = c.task;
        Running before = m.running_on(c);
        unsigned broken = 0;
        auto operation = [&](Step step) { begin(c, step, action.arg), advance(m, c, design); };
        m.seen = Seen{};
        switch (action.kind) {
        case STEP: advance(m, c, design); break;
        case HOST_BRANCH: host_branch(m, action.cpu, action.arg, false); break;
        case STRAY: host_branch(m, action.cpu, 0, true); break;
        case GUEST_BRANCH: guest_branch(m, action.cpu, action.arg); break;
        case INSTRUCT: instruct(m, c, Instruction(action.arg)); break;
        case PMI: pmi(m, c, design); break;
        case OVERFLOW:
            c.overflowed = 1;
            m.w.window[action.cpu].frozen = (c.regs.debugctl & DEBUG_FREEZE) != 0;
            c.regs.freeze(m.legacy);
            break;
        case SWITCH:
            kept(m, action.cpu) = before.call_stack() ? m.w.window[action.cpu] : Ghost{};
            operation(SWITCH_OUT);
            break;
        case ENTER: operation(ENTER_SAFE); break;
        case LEAVE: operation(EXIT_OUT); break;
        case OPEN: operation(IPI_OPEN); break;
        case CLOSE: operation(IPI_CLOSE); break;
        case HOST_PEBS: design.pebs_sample(m, c); break;
        case MIGRATE: operation(MIGRATE_PUT); break;
        case REENABLE: operation(IPI_ENABLE); break;
        case ROTATE: operation(IPI_ROTATE); break;
        }
        host_window(m, action.cpu, old_task, before);
        if (!c.overflowed) m.w.window[action.cpu].frozen = 0;
        if (m.seen.misuse) broken |= bit(P6);
        if (m.seen.ignored) broken |= bit(P22);
        if (m.seen.twice) broken |= bit(P23);
        if (m.seen.retired) retire(m, c);
        if (m.seen.exposure == BY_SAMPLE) broken |= at_sample(m, action.cpu);
        else if (m.seen.exposure)
            broken |= exposed_by(m, m.seen.guest, m.seen.exposure, m.seen.bank, m.seen.control,
                              m.seen.cut);
        return broken | everywhere(m);
    }
};
