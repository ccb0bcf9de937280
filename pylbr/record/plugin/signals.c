/* The guest's signal handlers, and what was interrupted when one begins.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "recorder.h"
#include "target.h"

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

int guest_is_restorer(uint64_t address) {
    int known = 0;
    for (int i = 0; i < 16; i++)
        known |= restorers[i] == address;
    return known && address > 1;
}

void guest_remember_handler(uint64_t action) {
    uint64_t fields[3]; /* handler, flags, restorer or mask */
    if (!action || guest_read(fields, action, sizeof fields) || fields[0] < 2)
        return;
    for (int i = 0; i < 16 && guest->restorer; i++) {
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

void guest_handler_entered(unsigned vcpu, const uint64_t *registers) {
    target_signal signal;
    int32_t info[3] = {0, 0, 1};
    if (!registers || !guest->signal(registers, &signal) ||
        (signal.info && guest_read(info, signal.info, sizeof info)))
        return;
    uint64_t number = signal.number;
    /* SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV that the kernel made, not a sender. */
    int fault = (number == 4 || number == 5 || number == 7 || number == 8 || number == 11) &&
                info[2] > 0;
    recorder_event(&recorder_cpus[vcpu], fault ? WIRE_SYNCHRONOUS : WIRE_ASYNCHRONOUS,
                   &signal.address);
}
