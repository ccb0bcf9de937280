"""The public cimport surface: ``from lbrcore cimport lbr_record``."""

from lbrcore.lbr cimport (
    LbrState, lbr_begin, lbr_branch, lbr_check, lbr_config, lbr_cursor, lbr_end, lbr_entry,
    lbr_get, lbr_record, lbr_state, lbr_step,
)
