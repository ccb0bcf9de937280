/* Which memory is executable, as pylbr has last published it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "blob.h"

/* The range that holds the address, or NULL.  A table that is being written holds nothing: the
 * window is cut or the tick skipped. */
const struct range *range_at(u64 address) {
    struct shared *s = shared();
    u64 version = __atomic_load_n(&s->version, __ATOMIC_ACQUIRE);
    u64 low = 0, high = s->range_count;
    const struct range *found = NULL;
    if (version & 1 || high > NATIVE_RANGES)
        return NULL;
    while (low < high) {
        u64 middle = (low + high) / 2;
        if (address < s->ranges[middle].start)
            high = middle;
        else if (address >= s->ranges[middle].end)
            low = middle + 1;
        else {
            found = &s->ranges[middle];
            break;
        }
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&s->version, __ATOMIC_RELAXED) == version ? found : NULL;
}
