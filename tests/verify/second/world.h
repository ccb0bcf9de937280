// All that is remembered anywhere, and the name of a state.
//
// A state is what memory and registers hold.  Two states are one if they differ in which guest is
// called A, or in how the records of an owner are told apart: so a state's name is the smallest,
// over the orders of the processors and guests, of its contents with records numbered by first appearance.
#pragma once
#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "facility.h"

constexpr int SLOTS = 2;

// Flags of a host event, as `pylbr.verify.models.KINDS` has them.
constexpr Byte PINNED = 1, EXCLUDE_GUEST = 2, EXCLUDE_HOST = 4, VLBR = 8, USER_ONLY = 16;
constexpr Byte CALL_STACK = 32, ON_TASK = 64, BY_PEBS = 128;

enum EventState : Byte { NO_EVENT, WAITING, RUNNING, FAILED };

struct Event {
    Byte state = NO_EVENT, flags = 0, ran = 0;
};

struct Stash {  // records put aside; what is in one that is not `valid` counts for nothing
    Byte valid = 0, control = 0;
    Bank bank{};
};

struct Context {
    std::array<Event, SLOTS> event{};
    Stash stash{};
    Byte stash_cut = 0;  // of the window that goes with the task records are missing
};

// What is done next.  The first step of an operation is taken as the operation is begun.
enum Step : Byte {
    SWITCH_OUT, SWITCH_PUT, SWITCH_IN, SWITCH_ON, SWITCH_LOAD,
    ENTER_SAFE, ENTER_LOOK, ENTER_PREPARE, ENTER_GO,
    EXIT_OUT, EXIT_TAKE, EXIT_ON, EXIT_EMULATE,
    IPI_OPEN, IPI_OPENED, IPI_CLOSE, IPI_CLOSED, IPI_ENABLE, IPI_ENABLED, IPI_ROTATE, IPI_ROTATED,
    MIGRATE_PUT, MIGRATE_MOVE, MIGRATE_LOAD,
};

struct Activity {
    Step step = SWITCH_OUT;
    Byte part = 0;  // of a step that takes several
    Byte arg = 0;
};

struct Cpu {
    Registers regs{};
    Context events{}, host_task{};   // of the CPU, and of the task that it runs for the host
    Byte task = 0, guest = 0;       // 0 the host's task, 1 + g; 0 none, 1 + g
    Byte owner = EMPTY;             // EMPTY, HOST, GUEST + g
    Byte interrupts = 1, wanted = 0;
    Byte attached = 0, cut = 0, programmed = 0;
    Byte overflowed = 0;            // a counter of the host; its PMI has not come
    Byte asks_freeze = 0;           // how perf last set bit 11 of IA32_DEBUGCTL
    Byte stash_frozen = 0;          // the records of events.stash wait for a PMI
    Byte noted = 0;                 // kvm-legacy's «is it ACTIVE?», when asked too early
    Record operand{};
    std::vector<Activity> doing{};  // the last is on top
};

// Vcpu::level2 and Ghost::level2: no guest's guest runs; one runs with L1's control register; with
// its own, as the controls of vmcs12 ask.
constexpr Byte LEVEL1 = 0, LEVEL2 = 1, LEVEL2_CONTROLS = 2;

struct Vcpu {
    Byte entry_debugctl = 0, entry_control = 0, load = 0, clear = 0;  // VMCS
    Byte control = 0, debugctl = 0, smm = 0, smm_control = 0, snapshot = 0;
    Byte uses = 0, passthrough = 0, xsaves_exit = 1, lost = 0, cleanup = 0;
    Byte image_control = 0;
    Byte pebs_lbrs = 0;         // MSR_PEBS_DATA_CFG.LBRS stays as the guest has set it
    Byte pmi = 0, frozen = 0;   // to be injected; LBR_FRZ, while it is not in the registers
    Byte level2 = 0, vmcs12_control = 0, vmcs12_debugctl = 0, other_control = 0;
    Bank image{};
};

// What an owner of its own facility would see.
struct Ghost {
    Byte on = 0, user_only = 0, call_stack = 0, smm = 0, control = 0, level2 = 0, vmcs12 = 0;
    Byte freeze = 0, frozen = 0;
    Bank bank{};
};

struct World {
    std::array<Cpu, MAX_CPUS> cpu{};
    std::array<Ghost, MAX_CPUS> window{};
    std::array<Context, MAX_GUESTS> thread{};   // of each vCPU
    // A call stack's window, while its task does not run: the host's, or a thread.
    std::array<Ghost, MAX_CPUS> kept_host{};
    std::array<Ghost, MAX_GUESTS> kept{};
    std::array<Vcpu, MAX_GUESTS> vcpu{};
    std::array<Ghost, MAX_GUESTS> guest{};
};

struct Size {
    int cpus = 1, guests = 1, depth = 1;
};

// Show every memory cell to `v`: numbers, who-is-who numbers (`base` + guest), and records.
template <class V> void see(V &v, Bank &bank, int depth) {
    for (int i = 0; i < depth; i++) v.record(bank.at[i]);
    v.record(bank.ler);
}

template <class V> void see(V &v, Context &context, int depth) {
    for (Event &event : context.event)
        for (Byte cell : {Byte(event.state), event.flags, event.ran}) v.number(cell);
    v.number(context.stash.valid), v.number(context.stash_cut);
    if (!context.stash.valid) return;
    v.number(context.stash.control);
    see(v, context.stash.bank, depth);
}

template <class V> void see(V &v, Ghost &ghost, int depth) {
    for (Byte *cell : {&ghost.on, &ghost.user_only, &ghost.call_stack, &ghost.smm, &ghost.control,
                       &ghost.level2, &ghost.vmcs12, &ghost.freeze, &ghost.frozen})
        v.number(*cell);
    see(v, ghost.bank, depth);
}

template <class V> void see(V &v, Vcpu &u, int depth) {
    for (Byte *cell : {&u.entry_debugctl, &u.entry_control, &u.load, &u.clear, &u.control,
                       &u.debugctl, &u.smm, &u.smm_control, &u.snapshot, &u.uses,
                       &u.passthrough, &u.xsaves_exit, &u.lost, &u.cleanup, &u.image_control,
                       &u.pebs_lbrs, &u.pmi, &u.frozen, &u.level2, &u.vmcs12_control,
                       &u.vmcs12_debugctl, &u.other_control})
        v.number(*cell);
    see(v, u.image, depth);
}

template <class V> void see(V &v, Cpu &c, int depth) {
    see(v, c.regs.bank, depth);
    see(v, c.events, depth);
    see(v, c.host_task, depth);
    for (Byte *cell : {&c.regs.control, &c.regs.debugctl, &c.regs.frozen, &c.interrupts, &c.wanted,
                       &c.attached, &c.cut, &c.programmed, &c.overflowed, &c.asks_freeze,
                       &c.stash_frozen, &c.noted})
        v.number(*cell);
    v.who(c.task, 1), v.who(c.guest, 1), v.who(c.owner, GUEST);
    v.record(c.operand);
    Byte count = static_cast<Byte>(c.doing.size());
    v.number(count);
    for (Activity &activity : c.doing) {
        Byte step = activity.step;
        v.number(step), v.number(activity.part);
        if (step <= SWITCH_LOAD) v.who(activity.arg, 1);
        else v.number(activity.arg);
    }
}

// Numbers from 0 in ascending order, the first of their permutations.
inline std::vector<int> ascending(int count) {
    std::vector<int> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
}

template <class V>
void see(V &v, World &w, const Size &size, const std::vector<int> &cpus,
         const std::vector<int> &order) {
    for (int i : cpus) {
        see(v, w.cpu[i], size.depth);
        see(v, w.window[i], size.depth);
        see(v, w.kept_host[i], size.depth);
    }
    for (int g : order) {
        see(v, w.vcpu[g], size.depth);
        see(v, w.thread[g], size.depth);
        see(v, w.guest[g], size.depth);
        see(v, w.kept[g], size.depth);
    }
}

struct Namer {
    std::string out{};
    std::array<int, MAX_GUESTS> rank{};
    std::array<std::array<Byte, 64>, GUEST + MAX_GUESTS> known;
    std::array<Byte, GUEST + MAX_GUESTS> names{};  // how many of each owner are known

    explicit Namer(const std::vector<int> &order) {
        out.reserve(512);
        for (std::size_t i = 0; i < order.size(); i++) rank[order[i]] = static_cast<int>(i);
    }
    void put(int value) { out.push_back(static_cast<char>(value)); }
    void number(Byte value) { put(value); }
    void who(Byte value, int base) { put(value < base ? value : base + rank[value - base]); }
    void record(const Record &record) {
        if (record.empty()) return put(0);
        auto &of_owner = known[record.who];
        Byte &count = names[record.who], name = 0;
        while (name < count && of_owner[name] != record.id) name++;
        if (name == count) of_owner[count++] = record.id;
        who(record.who, GUEST), put(record.kernel), put(name);
    }
};

inline std::string name_of(World &w, const Size &size) {
    std::vector<int> cpus = ascending(size.cpus), order = ascending(size.guests);
    std::string least;
    do {
        do {
            Namer namer(order);
            see(namer, w, size, cpus, order);
            if (least.empty() || namer.out < least) least = namer.out;
        } while (std::next_permutation(order.begin(), order.end()));
    } while (std::next_permutation(cpus.begin(), cpus.end()));
    return least;
}

// A new record of `owner`: one that is remembered nowhere.
struct Census {
    Byte owner;
    std::array<bool, 64> taken{};
    void number(Byte) {}
    void who(Byte, int) {}
    void record(const Record &record) {
        if (record.who == owner) taken[record.id] = true;
    }
};

inline Record fresh(World &w, const Size &size, Byte owner, bool kernel) {
    Census census{owner};
    see(census, w, size, ascending(size.cpus), ascending(size.guests));
    Record record{owner, kernel, 0};
    while (census.taken[record.id]) record.id++;
    return record;
}
