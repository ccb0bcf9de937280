/* Decodes many byte strings of 16 bytes each, for the tests. */
#include "decode.h"

size_t insn_size(void) { return sizeof(struct x86_insn); }

void decode_many(const uint8_t *strings, size_t count, size_t available, struct x86_insn *out) {
    for (size_t i = 0; i < count; i++)
        x86_decode(strings + 16 * i, available, out + i);
}
