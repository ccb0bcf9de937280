"""The time-stamp counter: instructions retired, and what was slept through."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from pylbr.x86.blocks cimport BlockRecorder, blocks_position


cdef int _rdtsc(void* engine, void* stamp) noexcept nogil:
    """Instruction hook of RDTSC and RDTSCP: 1, the engine shall not execute it itself."""
    cdef stamp_state* s = <stamp_state*> stamp
    cdef uint64_t rip = 0, now, half
    s.tracker.read(engine, s.rip, &rip)
    now = blocks_position(s.tracker, rip) + s.idle + s.offset
    half = <uint32_t> now
    s.write(engine, s.rax, &half)
    half = now >> 32
    s.write(engine, s.rdx, &half)
    return 1


@cython.final
cdef class TimeStamp:
    """TimeStamp(recorder, write, registers)\n--\n
    The time-stamp counter of an engine, with a tick per instruction.

    Parameters
    ----------
    recorder : BlockRecorder
        Counts the instructions.
    write : int
        Address of the emulator's ``int write(engine, int register, const void *value)``.
    registers : tuple of int
        Its numbers of RIP, RAX and RDX.
    """

    def __cinit__(self, BlockRecorder recorder not None, write, registers):
        self.recorder = recorder
        self.state.tracker = &recorder.tracker
        self.state.write = <register_write> <size_t> write
        self.state.rip, self.state.rax, self.state.rdx = registers
        self.state.idle = self.state.offset = 0

    @property
    def hook(self):
        """Addresses for the emulator: instruction hook of RDTSC and RDTSCP, its last argument.

        ``int rdtsc(void *engine, void *last)``.
        """
        return <size_t> &_rdtsc, <size_t> &self.state

    @property
    def idle(self):
        """Ticks that passed while no instruction ran."""
        return self.state.idle

    @idle.setter
    def idle(self, value):
        self.state.idle = value

    @property
    def offset(self):
        """What is added modulo 2**64, as WRMSR of IA32_TIME_STAMP_COUNTER demands."""
        return self.state.offset

    @offset.setter
    def offset(self, value):
        self.state.offset = value

    def clock(self):
        """Ticks since the machine was switched on, at the start of the running block."""
        return self.recorder.tracker.instructions + self.state.idle

    def now(self):
        """The counter's value at the start of the running block."""
        return self.recorder.tracker.instructions + self.state.idle + self.state.offset
