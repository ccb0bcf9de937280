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
    int worst = 0;
    lbr_held at = lbr_hold(state);
    for (size_t i = 0; i < n; i++)
        worst |= lbr_record_held(&at, branch[i].from, branch[i].to, branch[i].cycles, kind[i]);
    lbr_release(&at);
    return worst;
}
