/* Writing machine code into a lane's slice of a region.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_NATIVE_EMIT_H
#define PYLBR_NATIVE_EMIT_H

#include "blob.h"

struct emitter {
    u8 *at;       /* where the next byte is written */
    int64_t alias;/* between the address that executes and the one that is written */
    u64 base;     /* of the slice, as it executes: its face */
};

static inline u64 emit_address(const struct emitter *e) { return (u64)e->at - (u64)e->alias; }

static inline void emit_bytes(struct emitter *e, const void *bytes, u64 size) {
    copy(e->at, bytes, size);
    e->at += size;
}

/* The bytes of `code`, the lowest first. */
static inline void emit(struct emitter *e, u64 code, u32 size) {
    for (u32 i = 0; i < size; i++)
        *e->at++ = (u8)(code >> 8 * i);
}

/* A RIP-relative displacement of a slot of the face; `after`: bytes that follow it. */
static inline void emit_slot(struct emitter *e, u32 slot, u32 after) {
    emit(e, e->base + slot - (emit_address(e) + 4 + after), 4);
}

static inline void emit_jump(struct emitter *e, u64 target) {
    emit(e, 0xe9, 1);
    emit(e, target - (emit_address(e) + 4), 4);
}

/* push $address, as a call does */
static inline void emit_push(struct emitter *e, u64 address) {
    emit(e, 0x68, 1);
    emit(e, address, 4);
    emit(e, 0x042444c7, 4);
    emit(e, address >> 32, 4);
}

#define FACE_SLOT(name) ((u32)offsetof(struct face, name))

#endif
