"""Pages with code that an engine has translated: stores to them are to be noticed.

Unicorn looks for translated code at a store only until it has marked the page's TLB entry as
dirty, and it does not take that mark back when code of the page is translated later.  A store by
another virtual address, one that is not executable, then leaves the old translation in use.  The
mark is kept off where a hook of memory accesses covers the physical address.  So the memory around
translated code gets such hooks, of a kind that never fires; only there stores take the slow way.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free

#: Bytes of a page, and of the pieces that hooks cover.
PAGE = 1 << 12
CHUNK = 1 << 16

cdef enum:
    PAGE_SHIFT = 12
    CHUNK_SHIFT = 16

ctypedef struct translated_block:  # uc_tb
    uint64_t pc
    unsigned short icount
    unsigned short size


cdef int _never(void* engine, int access, uint64_t address, int size, uint64_t value,
                void* last) noexcept nogil:
    return 0


cdef void _cover(code_pages* p, uint64_t first, uint64_t end) noexcept nogil:
    """Hook the chunks `first` to `end`, and keep the handle with the first."""
    if p.add(p.engine, &p.handles[first], p.kind, <void*> &_never, NULL, first << CHUNK_SHIFT,
             (end << CHUNK_SHIFT) - 1):
        p.failed = True


cdef void _watch(code_pages* p, uint64_t chunk) noexcept nogil:
    """Keep the stores to a chunk on the slow way; runs of chunks share a hook."""
    cdef uint64_t first = chunk, end = chunk + 1
    p.watched[chunk] = True
    if chunk and p.watched[chunk - 1]:
        while first and p.watched[first - 1]:
            first -= 1
        p.remove(p.engine, p.handles[first])
    if end < p.chunks and p.watched[end]:
        p.remove(p.engine, p.handles[end])
        while end < p.chunks and p.watched[end]:
            end += 1
    _cover(p, first, end)
    p.control(p.engine, p.flush)  # the marks that were there before


cdef int _mark(code_pages* p, uint64_t address) noexcept nogil:
    """Note the page at a virtual address; 0, or the engine's error."""
    cdef uint64_t physical = 0
    cdef int error = p.translate(p.engine, address, p.execution, &physical)
    if error:
        return error
    if physical >> PAGE_SHIFT < p.count:  # beyond is no memory
        p.pages[physical >> PAGE_SHIFT] = True
        if not p.watched[physical >> CHUNK_SHIFT]:
            _watch(p, physical >> CHUNK_SHIFT)
    return 0


cdef void _watch_all(code_pages* p) noexcept nogil:
    cdef uint64_t chunk
    for chunk in range(p.chunks):
        p.watched[chunk] = True
    _cover(p, 0, p.chunks)
    p.control(p.engine, p.flush)


cdef void _translated(void* engine, translated_block* block, void* previous,
                      void* pages) noexcept nogil:
    """Translation hook."""
    cdef code_pages* p = <code_pages*> pages
    cdef uint64_t last = block.pc + (block.size - 1 if block.size else 0)
    if _mark(p, block.pc) or last >> PAGE_SHIFT != block.pc >> PAGE_SHIFT and _mark(p, last):
        p.unknown = True
        _watch_all(p)


cdef class CodePages:
    """CodePages(engine, memory, functions, kind, execution, flush)\n--\n
    The pages of one engine's memory that have translated code.

    Parameters
    ----------
    engine : int
        Handle of the engine.
    memory : int
        Bytes of memory from physical address 0, a multiple of `CHUNK`.
    functions : tuple of int
        Addresses of ``uc_vmem_translate``, ``uc_hook_add``, ``uc_hook_del`` and ``uc_ctl``.
    kind, execution, flush : int
        UC_HOOK_MEM_WRITE_PROT, UC_PROT_EXEC, and what ``uc_ctl`` flushes the TLB by.

    Attributes
    ----------
    pages : bytearray
        Of each page, whether code of it was translated.
    unknown : bool
        Code was translated of a page that is not known.
    """

    def __cinit__(self, engine, memory, functions, kind, execution, flush):
        cdef code_pages* p = &self.state
        if memory <= 0 or memory % CHUNK:
            raise ValueError(f"memory: must be a multiple of {CHUNK} bytes, not {memory}")
        translate, add, remove, control = functions
        p.engine, p.kind, p.execution, p.flush = <void*> <size_t> engine, kind, execution, flush
        p.translate, p.add = <translation> <size_t> translate, <addition> <size_t> add
        p.remove, p.control = <removal> <size_t> remove, <control_call> <size_t> control
        p.count, p.chunks = memory >> PAGE_SHIFT, memory >> CHUNK_SHIFT
        self.pages = bytearray(p.count)
        p.pages = <uint8_t*> PyByteArray_AS_STRING(self.pages)
        p.watched = <uint8_t*> calloc(p.chunks, 1)
        p.handles = <size_t*> calloc(p.chunks, sizeof(size_t))
        if p.watched == NULL or p.handles == NULL:
            raise MemoryError("no memory for the pages with code")

    def __dealloc__(self):
        free(self.state.watched)
        free(self.state.handles)

    @property
    def hook(self):
        """Addresses for the emulator: translation hook, its last argument.

        ``void translated(void *engine, uc_tb *block, uc_tb *previous, void *last)``.
        """
        return <size_t> &_translated, <size_t> &self.state

    def enter(self, address):
        """The engine is about to run from `address`: it does not report the block there.

        That block may end in the next page.

        Returns
        -------
        bool
            False: the engine has failed to translate an address, and that is to be undone.

        Raises
        ------
        MemoryError
            The engine had none for a hook.
        """
        cdef code_pages* p = &self.state
        cdef uint64_t at = address
        if p.failed:
            raise MemoryError("no memory for a hook of the pages with code")
        if _mark(p, at):
            p.unknown = True
            _watch_all(p)
            return False
        return not _mark(p, at + (1 << PAGE_SHIFT))

    def forget(self):
        """All will be translated again."""
        cdef uint64_t page
        for page in range(self.state.count):
            self.state.pages[page] = False
        self.state.unknown = False

    @property
    def unknown(self):
        return self.state.unknown

    @property
    def watched(self):
        """Of each `CHUNK`, whether stores to it take the slow way, as bytes."""
        return self.state.watched[:self.state.chunks]
