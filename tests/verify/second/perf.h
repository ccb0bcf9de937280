// Which events of host perf run: CPU-pinned, task-pinned, CPU-flexible, task-flexible, as long as
// they ask for the same filter.
#pragma once
#include "world.h"

constexpr Byte FILTER = USER_ONLY | CALL_STACK;  // one for all that run

struct Running {
    int users = 0, hosts = 0;
    int handled = 0;         // perf's own that a PMI handler reads; the others are PEBS records
    bool vlbr = false;
    Byte asked = 0;          // the filter of perf's own; EXCLUDE_GUEST if all of them ask for it
    bool newcomer = false;   // the first of them never ran before
    bool other = false;      // perf's own now ask for something else than before

    void add(const Event &event) {
        users++;
        if (event.flags & VLBR) {
            vlbr = true;
            return;
        }
        Byte exclude = event.flags & EXCLUDE_GUEST & (hosts ? asked : EXCLUDE_GUEST);
        asked = exclude | (asked & FILTER) | (event.flags & FILTER);
        hosts++;
        handled += !(event.flags & BY_PEBS);
    }
    bool call_stack() const { return asked & CALL_STACK; }
    bool traces_guests() const { return !(asked & EXCLUDE_GUEST); }
};

// IA32_LBR_CTL for perf's own.
inline Byte control_for(const Running &now) {
    return now.call_stack() ? CTL_STACK : now.asked & USER_ONLY ? CTL_USER : CTL_ALL;
}

struct Sharing {
    bool vlbr_is_filtered = true;       // the guest's event goes through the shared filter too
    bool exclusion_is_filter = false;   // exclude_guest is part of the filter
};

inline Running running(const Context &cpu, const Context &task) {
    Running now;
    for (const Context *context : {&cpu, &task})
        for (const Event &event : context->event)
            if (event.state == RUNNING) now.add(event);
    return now;
}

inline Event *open_event(Context &context, Byte flags) {
    for (Event &event : context.event)
        if (event.state == NO_EVENT) {
            event = Event{WAITING, flags, 0};
            return &event;
        }
    return nullptr;
}

// Choose again; `task` may be absent.  `before` is what ran until now.
inline Running schedule(Context &cpu, Context *task, const Sharing &rule, const Running &before) {
    Running now;
    int filter = -1;
    for (Byte pinned : {PINNED, Byte(0)})
        for (Context *context : {&cpu, task}) {
            if (!context) continue;
            bool stuck = false;     // the rest of the context waits, or fails, with the first
            for (Event &event : context->event) {
                bool candidate = event.state == WAITING || event.state == RUNNING;
                if (!candidate || (event.flags & PINNED) != pinned) continue;
                bool guest = event.flags & VLBR, filtered = !guest || rule.vlbr_is_filtered;
                int wanted = event.flags & FILTER;
                if (rule.exclusion_is_filter) wanted |= event.flags & EXCLUDE_GUEST;
                stuck |= (guest && now.vlbr) || (filtered && filter >= 0 && filter != wanted);
                if (stuck) {
                    event.state = pinned ? FAILED : WAITING;
                    continue;
                }
                if (filtered) filter = wanted;
                if (!now.users && !event.ran) now.newcomer = true;
                event.state = RUNNING, event.ran = 1;
                now.add(event);
            }
        }
    now.other = before.hosts && now.hosts && before.asked != now.asked;
    return now;
}

// Flexible events compete, and one of them does not run.
inline bool competes(const Context &context) {
    int flexible = 0, waiting = 0;
    for (const Event &event : context.event)
        if (!(event.flags & PINNED)) {
            flexible += event.state == WAITING || event.state == RUNNING;
            waiting += event.state == WAITING;
        }
    return flexible > 1 && waiting;
}

// The multiplex timer: the first running flexible event goes to the end, or the first if none runs.
inline void rotate(Context &context) {
    std::array<Event, SLOTS> &all = context.event;
    if (!competes(context)) return;
    auto from = std::find_if(all.begin(), all.end(), [](const Event &e) { return e.state == RUNNING; });
    if (from == all.end()) from = all.begin();
    std::rotate(from, from + 1, all.end());
}

inline void stop_all(Context &context) {
    for (Event &event : context.event)
        if (event.state == RUNNING) event.state = WAITING;
}
