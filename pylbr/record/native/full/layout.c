/* What pylbr reads: offsets and sizes, in the order of the names in layout.py.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "full.h"

#define FIELD(type, name) offsetof(struct type, name), sizeof(((struct type *)0)->name)

__attribute__((used)) const u32 layout[] = {
    sizeof(struct range), FIELD(range, start), FIELD(range, end), FIELD(range, kind),
    sizeof(struct full_shared), FIELD(full_shared, stop), FIELD(full_shared, stopped),
    FIELD(full_shared, stopped_at), FIELD(full_shared, executed), FIELD(full_shared, forks),
    FIELD(full_shared, asked), FIELD(full_shared, answered), FIELD(full_shared, next_block),
    FIELD(full_shared, next_length), FIELD(full_shared, next_exit), FIELD(full_shared, written),
    FIELD(full_shared, read), FIELD(full_shared, version), FIELD(full_shared, range_count),
    FIELD(full_shared, ranges),
    sizeof(struct full_state), FIELD(full_state, shared), FIELD(full_state, blocks),
    FIELD(full_state, lengths), FIELD(full_state, exits), FIELD(full_state, ring),
    FIELD(full_state, low), FIELD(full_state, near), FIELD(full_state, code), FIELD(full_state, pc),
    FIELD(full_state, region_count), FIELD(full_state, slice), FIELD(full_state, regions),
    FIELD(full_state, code_start), FIELD(full_state, code_end), FIELD(full_state, private),
    FULL_BLOCKS, FULL_LENGTHS, FULL_EXITS, FULL_RING, FULL_LOG, NEAR, sizeof(struct tables),
};
