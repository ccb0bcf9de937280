/* Walks over code with the decoder and with capstone side by side.
 *
 * capstone's own headers are in no Python package; the few declarations here are its C API of
 * version 5, and the caller passes the offsets of cs_insn's members.
 */
#include <stdlib.h>
#include <string.h>

#include "decode.h"

typedef int (*cs_disasm_iter_t)(size_t handle, const uint8_t **code, size_t *size,
                                uint64_t *address, void *insn);

struct judge {
    cs_disasm_iter_t next;
    size_t handle;
    uint8_t *insn;       /* a cs_insn */
    size_t size_at, op_str_at;
    const uint8_t *classes; /* by instruction id: enum lbr_class, CALL, JUMP or 0xff */
    size_t ids;
};

/* Of these the operand decides whether they are direct. */
enum { CALL = 0xfd, JUMP = 0xfe };

/* Kinds of finding; counts[] has one place each. */
enum { SAME, REFUSED_UNDEFINED, REFUSED_AMBIGUOUS, NO_CODE, ALONE, LENGTH, CLASS, TARGET, KINDS };

struct finding {
    uint64_t at;
    uint8_t kind, mine, judge, cls;
};

static unsigned judged_class(const struct judge *j, uint64_t *target) {
    uint32_t id;
    memcpy(&id, j->insn, 4);
    unsigned cls = id < j->ids ? j->classes[id] : X86_NO_BRANCH;
    const char *operand = (const char *)j->insn + j->op_str_at;
    int direct = operand[0] >= '0' && operand[0] <= '9';
    *target = direct ? strtoull(operand, 0, 0) : 0;
    if ((cls == CALL || cls == JUMP) && !strncmp(operand, "ptr ", 4))
        return LBR_FAR_BRANCH; /* capstone has no name for all sizes of a far pointer */
    if (cls == CALL)
        return direct ? LBR_NEAR_REL_CALL : LBR_NEAR_IND_CALL;
    if (cls == JUMP)
        return direct ? LBR_NEAR_REL_JMP : LBR_NEAR_IND_JMP;
    return cls;
}

static unsigned compare(const struct judge *j, const struct x86_insn *mine, size_t length,
                        uint64_t address) {
    uint64_t target;
    if (!mine->length && !length)
        return NO_CODE;
    if (!mine->length)
        return mine->refusal == X86_AMBIGUOUS ? REFUSED_AMBIGUOUS : REFUSED_UNDEFINED;
    if (!length)
        return ALONE;
    if (mine->length != length)
        return LENGTH;
    unsigned cls = judged_class(j, &target);
    unsigned own = mine->cls == LBR_ZERO_CALL ? LBR_NEAR_REL_CALL : mine->cls;
    if (own != cls)
        return CLASS;
    int direct = own == LBR_COND || own == LBR_NEAR_REL_JMP || own == LBR_NEAR_REL_CALL;
    return direct && address + length + (uint64_t)mine->displacement != target ? TARGET : SAME;
}

/* Returns the number of findings, of which the first `room` are in `found`. */
size_t sweep(const struct judge *j, const uint8_t *code, size_t size, uint64_t address,
             uint64_t *counts, struct finding *found, size_t room) {
    size_t at = 0, findings = 0;
    while (at < size) {
        const uint8_t *head = code + at;
        size_t left = size - at;
        uint64_t where = address + at;
        struct x86_insn mine;
        uint16_t length = 0;
        x86_decode(head, left, &mine);
        if (mine.refusal == X86_TRUNCATED)
            break;
        if (j->next(j->handle, &head, &left, &where, j->insn))
            memcpy(&length, j->insn + j->size_at, 2);
        unsigned kind = compare(j, &mine, length, address + at);
        counts[kind]++;
        if (kind != SAME && kind != NO_CODE) {
            if (findings < room)
                found[findings] = (struct finding){at, (uint8_t)kind, mine.length,
                                                   (uint8_t)length, mine.cls};
            findings++;
        }
        at += length ? length : mine.length ? mine.length : 1;
    }
    return findings;
}
