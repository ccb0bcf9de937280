from libc.stdint cimport uint8_t, uint64_t

ctypedef int (*translation)(void* engine, uint64_t address, int access,
                            uint64_t* physical) noexcept nogil
ctypedef int (*addition)(void* engine, size_t* handle, int kind, void* callback, void* last,
                         uint64_t begin, uint64_t end, ...) noexcept nogil
ctypedef int (*removal)(void* engine, size_t handle) noexcept nogil
ctypedef int (*control_call)(void* engine, int control, ...) noexcept nogil

ctypedef struct code_pages:
    void* engine
    translation translate
    addition add
    removal remove
    control_call control
    int kind, execution, flush
    uint64_t count, chunks
    uint8_t* pages
    uint8_t* watched
    size_t* handles         # of a run's first chunk
    bint unknown, failed


cdef class CodePages:
    cdef code_pages state
    cdef readonly bytearray pages
