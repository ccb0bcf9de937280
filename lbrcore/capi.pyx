"""The function table of ``lbrcore.h`` and the capsule that carries it."""

cimport cython
from cpython.pycapsule cimport PyCapsule_New
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from lbrcore.batch cimport lbr_record_batch
from lbrcore.control cimport (
    lbr_set_enable, lbr_set_event_mask, lbr_set_frozen, lbr_write_ctl, lbr_write_depth,
    lbr_write_tos,
)
from lbrcore.lbr cimport (
    LBR_OK, LBRCORE_ABI_VERSION, QUICK_ALL, QUICK_CALL_STACK, QUICK_PLAIN, lbr_branch, lbr_config,
    lbr_copy, lbr_create, lbr_destroy, lbr_entry, lbr_in_quick_range, lbr_read_entry, lbr_read_ler,
    lbr_read_records, lbr_record_all, lbr_record_any, lbr_record_plain, lbr_record_stack, lbr_reset,
    lbr_state, lbr_write_entry, lbr_write_ler, lbr_xsave_layout,
)
from lbrcore.xsave cimport lbr_pack, lbr_unpack, lbr_xrstors, lbr_xsaves


cdef extern from "lbrcore.h" nogil:
    const char* LBRCORE_CAPSULE

    ctypedef struct lbrcore_api:
        uint32_t abi_version
        uint32_t struct_size
        uint32_t branch_size
        uint32_t entry_size
        uint32_t config_size
        uint32_t state_size
        lbr_state* (*create)(const lbr_config*) noexcept nogil
        void (*destroy)(lbr_state*) noexcept nogil
        void (*copy)(lbr_state*, const lbr_state*) noexcept nogil
        void (*reset)(lbr_state*) noexcept nogil
        int (*record)(lbr_state*, const lbr_branch*) noexcept nogil
        int (*record_batch)(lbr_state*, const lbr_branch*, size_t) noexcept nogil
        int (*write_ctl)(lbr_state*, uint64_t) noexcept nogil
        int (*write_depth)(lbr_state*, uint64_t) noexcept nogil
        void (*set_enable)(lbr_state*, int) noexcept nogil
        void (*set_frozen)(lbr_state*, int) noexcept nogil
        void (*set_event_mask)(lbr_state*, int) noexcept nogil
        int (*write_tos)(lbr_state*, uint32_t) noexcept nogil
        int (*read_entry)(const lbr_state*, uint32_t, lbr_entry*) noexcept nogil
        int (*write_entry)(lbr_state*, uint32_t, const lbr_entry*) noexcept nogil
        uint32_t (*read_records)(const lbr_state*, lbr_entry*) noexcept nogil
        void (*read_ler)(const lbr_state*, lbr_entry*) noexcept nogil
        void (*write_ler)(lbr_state*, const lbr_entry*) noexcept nogil
        int (*pack)(const lbr_state*, void*, size_t) noexcept nogil
        int (*unpack)(lbr_state*, const void*, size_t) noexcept nogil
        int (*xsaves)(const lbr_state*, void*, size_t, const lbr_xsave_layout*, uint64_t,
                      uint64_t) noexcept nogil
        int (*xrstors)(lbr_state*, const void*, size_t, const lbr_xsave_layout*, uint64_t,
                       uint64_t) noexcept nogil


cdef int _record(lbr_state* state, const lbr_branch* branch) noexcept nogil:
    # Here and not in lbr.pyx, where gcc would merge the rare modes into the quick path.
    if cython.likely(lbr_in_quick_range(branch)):
        if state.quick == QUICK_ALL:
            lbr_record_all(state, branch)
            return LBR_OK
        if state.quick == QUICK_PLAIN:
            lbr_record_plain(state, branch)
            return LBR_OK
        if state.quick == QUICK_CALL_STACK:
            lbr_record_stack(state, branch)
            return LBR_OK
    return lbr_record_any(state, branch)


cdef lbrcore_api _api
_api.abi_version = LBRCORE_ABI_VERSION
_api.struct_size = sizeof(lbrcore_api)
_api.branch_size = sizeof(lbr_branch)
_api.entry_size = sizeof(lbr_entry)
_api.config_size = sizeof(lbr_config)
_api.state_size = sizeof(lbr_state)
_api.create = lbr_create
_api.destroy = lbr_destroy
_api.copy = lbr_copy
_api.reset = lbr_reset
_api.record = _record
_api.record_batch = lbr_record_batch
_api.write_ctl = lbr_write_ctl
_api.write_depth = lbr_write_depth
_api.set_enable = lbr_set_enable
_api.set_frozen = lbr_set_frozen
_api.set_event_mask = lbr_set_event_mask
_api.write_tos = lbr_write_tos
_api.read_entry = lbr_read_entry
_api.write_entry = lbr_write_entry
_api.read_records = lbr_read_records
_api.read_ler = lbr_read_ler
_api.write_ler = lbr_write_ler
_api.pack = lbr_pack
_api.unpack = lbr_unpack
_api.xsaves = lbr_xsaves
_api.xrstors = lbr_xrstors

# The table lives as long as the module, and modules are not unloaded: no destructor.
_C_API = PyCapsule_New(&_api, LBRCORE_CAPSULE, NULL)
