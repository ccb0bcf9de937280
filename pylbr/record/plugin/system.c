/* A whole system under qemu-system: no system calls, signals or mappings are seen, and a thread of
 * QEMU is a virtual processor.
 *
 * Blocks are recorded from the first one of the kernel on, that is of the upper half of addresses:
 * what comes before, the firmware and the kernel's loader, is code of 16 and 32 bits in part, and
 * the interface does not tell which.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "recorder.h"

#define RESET_VECTOR 0xfffffff0u

int recorder_system;
static int kernel_runs;

int system_records(uint64_t start) {
    if (start >> 63)
        STORE(kernel_runs, 1);
    else if (start == RESET_VECTOR)
        STORE(kernel_runs, 0);
    return LOAD(kernel_runs);
}
