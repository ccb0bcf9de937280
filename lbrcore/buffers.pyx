"""Arguments from Python: buffers and integers, checked once, with the argument's name."""

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release,
    PyObject_CheckBuffer, PyObject_GetBuffer,
)
from libc.stdint cimport uintptr_t
from libc.string cimport strcmp

from operator import index as as_index

from numpy import bool_, ndarray

from lbrcore.dtypes import BRANCH_DTYPE

cdef const char* BRANCH_FORMAT = (
    b"T{L:from:L:to:I:cycles:I:instructions:B:class:B:flags:B:cpl_from:B:cpl_to:(4)B:events:}")
cdef const char* ENTRY_FORMAT = b"T{L:from:L:to:L:info:}"


cdef int _refuse(object source, str name, str rule) except -1:
    kind = "None" if source is None else f"a {type(source).__name__}"
    raise TypeError(f"{name}: must be {rule}, not {kind}")


cdef bint _same_format(const char* given, const char* wanted) noexcept:
    """Q equals L wherever lbrcore is built; `array` and `memoryview.cast` use Q."""
    return not strcmp(given, wanted) or not strcmp(wanted, b"L") and not strcmp(given, b"Q")


cdef str _array_of(str dtype):
    return f"a one-dimensional, C-contiguous array of {dtype}"


cdef int acquire(
    object source, Py_buffer* view, str name, const char* format, Py_ssize_t itemsize,
    str dtype, bint writable
) except -1:
    # To spell the format takes NumPy longer than all else here.
    cdef bint known = (format == BRANCH_FORMAT and type(source) is ndarray
                       and source.dtype is BRANCH_DTYPE)
    if not PyObject_CheckBuffer(source):
        return _refuse(source, name, _array_of(dtype))
    try:
        PyObject_GetBuffer(
            source, view, PyBUF_STRIDES if known else PyBUF_FORMAT | PyBUF_STRIDES)
    except (BufferError, ValueError) as error:
        raise TypeError(f"{name}: must be {_array_of(dtype)}: {error}") from None
    try:
        if not known and (view.format == NULL or not _same_format(view.format, format)
                          or view.itemsize != itemsize):
            given = getattr(source, "dtype", None)
            if given is None:
                given = "buffer format " + (view.format.decode() if view.format else "B")
            raise TypeError(f"{name}: must be {_array_of(dtype)}, not of {given}")
        if view.ndim != 1:
            raise ValueError(f"{name}: must be {_array_of(dtype)}, not of {view.ndim} dimensions")
        if view.shape[0] > 1 and view.strides[0] != itemsize:
            raise ValueError(
                f"{name}: must be {_array_of(dtype)}; its stride is {view.strides[0]} bytes, "
                f"not {itemsize}: pass numpy.ascontiguousarray of it")
        if itemsize > 1 and view.shape[0] and <uintptr_t> view.buf % min(itemsize & -itemsize, 8):
            raise ValueError(
                f"{name}: must be {_array_of(dtype)} at an aligned address; pass a copy")
        if writable and view.readonly:
            raise ValueError(f"{name}: must be writable")
    except BaseException:
        PyBuffer_Release(view)
        raise
    return 0


cdef int acquire_bytes(object source, Py_buffer* view, str name, bint writable) except -1:
    if not PyObject_CheckBuffer(source):
        return _refuse(source, name, "a buffer of bytes")
    try:
        PyObject_GetBuffer(source, view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
    except (BufferError, ValueError) as error:
        rule = "a writable, contiguous buffer" if writable else "a contiguous buffer"
        raise TypeError(f"{name}: must be {rule}: {error}") from None
    return 0


cdef uint64_t unsigned(object value, str name, uint64_t highest) except? 0xFFFFFFFFFFFFFFFF:
    try:
        number = as_index(value)
    except TypeError:
        raise TypeError(f"{name}: must be an integer, not {type(value).__name__}") from None
    if number < 0 or number > highest:
        raise OverflowError(f"{name}: must be 0 to {highest:#x}, not {number:#x}")
    return number


cdef tuple several(object source, str name, int count):
    try:
        values = tuple(source)
    except TypeError:
        _refuse(source, name, f"{count} integers")
    if len(values) != count:
        raise ValueError(f"{name}: must be {count} integers, not {len(values)}")
    return values


cdef bint truth(object value, str name) except? True:
    if isinstance(value, (bool, bool_)):
        return bool(value)
    return unsigned(value, name, 1) != 0
