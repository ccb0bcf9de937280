// A facility as docs/processor.md has it, reduced to what can go wrong in a hand-over.
#pragma once
#include <array>
#include <cstdint>

constexpr int MAX_DEPTH = 3, MAX_CPUS = 2, MAX_GUESTS = 3;

using Byte = std::uint8_t;

// What a branch is besides a user's call.
constexpr Byte IN_KERNEL = 1, FAULTS = 2, RETURNS = 4, JUMPS = 8;

// Whose branch made a record.  Guest g is GUEST + g.
constexpr Byte EMPTY = 0, HOST = 1, GUEST = 2;

struct Record {
    Byte who = EMPTY;
    Byte kernel = 0;
    Byte id = 0;  // tells records of one owner apart, and nothing else

    bool empty() const { return who == EMPTY; }
    bool operator==(const Record &o) const {
        return who == o.who && kernel == o.kernel && id == o.id;
    }
    bool operator!=(const Record &o) const { return !(*this == o); }
};

struct Bank {  // newest first
    std::array<Record, MAX_DEPTH> at{};
    Record ler{};

    void clear_records() { at.fill(Record{}); }
    void clear() { *this = Bank{}; }
    bool empty() const {
        for (const Record &record : at)
            if (!record.empty()) return false;
        return true;
    }
    void push(const Record &record, int depth) {
        for (int i = depth - 1; i > 0; i--) at[i] = at[i - 1];
        at[0] = record;
    }
    // A call stack: calls push, returns pop, and nothing else counts.
    void take(const Record &record, Byte how, bool call_stack, int depth) {
        if (call_stack && how & RETURNS) {
            for (int i = 1; i < depth; i++) at[i - 1] = at[i];
            at[depth - 1] = Record{};
        } else if (!call_stack || !(how & (FAULTS | JUMPS))) {
            push(record, depth);
        }
    }
    // «The last taken branch before the last exception»: none, if there was none.
    void remember_last() {
        if (!at[0].empty()) ler = at[0];
    }
};

// IA32_LBR_CTL, as much of it as guests and perf write here.
constexpr Byte EN = 1, OS = 2, USR = 4, CLASSES = 8, STACK = 16;
constexpr Byte CTL_ALL = EN | OS | USR | CLASSES, CTL_USER = EN | USR | CLASSES;
constexpr Byte CTL_STACK = CTL_USER | STACK;
// IA32_DEBUGCTL and MSR_LBR_SELECT, with legacy LBRs.
constexpr Byte DEBUG_LBR = 1, DEBUG_FREEZE = 2, NO_KERNEL = 1, SELECT_STACK = NO_KERNEL | STACK;

struct Registers {
    Bank bank{};
    Byte control = 0;   // IA32_LBR_CTL or MSR_LBR_SELECT
    Byte debugctl = 0;
    Byte frozen = 0;    // LBR_FRZ

    bool on(bool legacy) const { return !frozen && (legacy ? debugctl & DEBUG_LBR : control & EN); }

    // A PMI: a PMU before version 4 clears the enable, a later one sets LBR_FRZ.
    void freeze(bool legacy) {
        if (!(debugctl & DEBUG_FREEZE)) return;
        if (legacy) debugctl &= ~DEBUG_LBR;
        else frozen = 1;
    }

    void branch(const Record &record, Byte how, int depth, bool legacy) {
        if (!on(legacy)) return;
        if (how & FAULTS) bank.remember_last();
        bool passes = legacy ? !(record.kernel && control & NO_KERNEL)
                             : control & CLASSES && control & (record.kernel ? OS : USR);
        if (passes) bank.take(record, how, control & STACK, depth);
    }
    // XRSTORS of one record, by a guest that leaves its control as it is.
    void restore(const Record &record) { bank.clear(), bank.at[0] = record; }
    // XRSTORS of the initial state.
    void initialise() { bank.clear(), control = 0; }
};
