/* The parts of lbrcore_inline.h that record by kind, as functions. */
#include <lbrcore_inline.h>

int inlined(lbr_state *state, const lbr_branch *branch, size_t n, const uint64_t *kind) {
    int worst = 0;
    for (size_t i = 0; i < n; i++)
        worst |= lbr_record_kind_inline(state, branch[i].from, branch[i].to, branch[i].cycles,
                                        kind[i]);
    return worst;
}

int held(lbr_state *state, const lbr_branch *branch, size_t n, const uint64_t *kind) {
    uint64_t at = lbr_hold_inline(state);
    for (size_t i = 0; i < n; i++)
        at = lbr_record_held_inline(state, at, branch[i].from, branch[i].to, branch[i].cycles,
                                    kind[i]);
    return lbr_release_inline(state, at);
}
