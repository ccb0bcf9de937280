/* The guest's signal handlers, and what was interrupted when one begins.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "recorder.h"

#define HANDLERS 1024

static uint64_t handlers[HANDLERS], restorers[16];

int guest_is_handler(uint64_t address) {
    for (size_t at = address % HANDLERS, i = 0; i < HANDLERS; i++, at = (at + 1) % HANDLERS) {
        if (handlers[at] == address)
            return 1;
        if (!handlers[at])
            return 0;
    }
    return 0;
}

void guest_remember_handler(uint64_t action) {
    uint64_t fields[3]; /* handler, flags, restorer */
    if (!action || guest_read(fields, action, sizeof fields) || fields[0] < 2)
        return;
    for (int i = 0; i < 16; i++) {
        if (restorers[i] && restorers[i] != fields[2])
            continue;
        restorers[i] = fields[2];
        break;
    }
    for (size_t at = fields[0] % HANDLERS, i = 0; i < HANDLERS; i++, at = (at + 1) % HANDLERS) {
        if (handlers[at] && handlers[at] != fields[0])
            continue;
        handlers[at] = fields[0];
        break;
    }
}

/* A frame's first word is the restorer's address; a plain call of the handler has none.
 * Layout of x86-64's rt_sigframe: restorer, ucontext (flags, link, stack, then the registers
 * in the order of gregs), siginfo. */
void guest_handler_entered(unsigned vcpu, const uint64_t *registers) {
    enum { RSP = 4, RSI = 6, RDI = 7 };
    enum { FRAME_RIP = 8 + 40 + 16 * 8 };
    uint64_t restorer, address;
    int32_t info[3];
    if (!registers || guest_read(&restorer, registers[RSP], 8) || restorer < 2)
        return;
    int known = 0;
    for (int i = 0; i < 16; i++)
        known |= restorers[i] == restorer;
    if (!known || guest_read(&address, registers[RSP] + FRAME_RIP, 8) ||
        guest_read(info, registers[RSI], sizeof info))
        return;
    uint64_t number = registers[RDI];
    /* SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV that the kernel made, not a sender. */
    int fault = (number == 4 || number == 5 || number == 7 || number == 8 || number == 11) &&
                info[2] > 0;
    recorder_event(&recorder_cpus[vcpu], fault ? WIRE_SYNCHRONOUS : WIRE_ASYNCHRONOUS, &address);
}
