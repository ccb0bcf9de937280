"""Layouts and numbers of wire.h, as the C compiler sees them: nothing of them is typed again."""

import numpy as np

cdef extern from "wire.h" nogil:
    """
    #define FIELD(type, name) {#name, offsetof(type, name), sizeof(((type *)0)->name)}
    typedef struct wire_field { const char *name; size_t offset, size; } wire_field;
    static const wire_field block_fields[] = {
        FIELD(wire_block, start), FIELD(wire_block, target), FIELD(wire_block, lengths),
        FIELD(wire_block, size), FIELD(wire_block, last), FIELD(wire_block, instructions),
        FIELD(wire_block, cost), {"class", offsetof(wire_block, cls), 1},
    };
    static const wire_field header_fields[] = {
        FIELD(wire_header, magic), FIELD(wire_header, version), FIELD(wire_header, mode),
        FIELD(wire_header, counted), FIELD(wire_header, period), FIELD(wire_header, accept),
        FIELD(wire_header, depth), FIELD(wire_header, slots), FIELD(wire_header, blocks),
        FIELD(wire_header, buckets), FIELD(wire_header, length_bytes),
        FIELD(wire_header, ring_words), FIELD(wire_header, chunk_words),
        FIELD(wire_header, message_bytes), FIELD(wire_header, halves),
        FIELD(wire_header, counted_halves),
        FIELD(wire_header, slots_at),
        FIELD(wire_header, blocks_at), FIELD(wire_header, buckets_at),
        FIELD(wire_header, lengths_at), FIELD(wire_header, rings_at),
        FIELD(wire_header, messages_at), FIELD(wire_header, size), FIELD(wire_header, stopped),
        FIELD(wire_header, next_block), FIELD(wire_header, next_length),
        FIELD(wire_header, slots_used), FIELD(wire_header, lost_threads),
    };
    #define BLOCK_FIELDS (sizeof block_fields / sizeof *block_fields)
    #define HEADER_FIELDS (sizeof header_fields / sizeof *header_fields)
    """
    ctypedef struct wire_field:
        const char* name
        size_t offset, size
    const wire_field[] block_fields
    const wire_field[] header_fields
    const size_t BLOCK_FIELDS, HEADER_FIELDS

    ctypedef struct wire_block:
        pass
    ctypedef struct wire_header:
        pass
    ctypedef struct wire_slot:
        pass
    const unsigned WIRE_MAGIC, WIRE_VERSION, WIRE_PAYLOAD, WIRE_PAYLOAD_BITS, WIRE_EVENT
    const unsigned WIRE_NO_BRANCH, WIRE_WINDOW_WORDS
    enum:
        WIRE_ASYNCHRONOUS, WIRE_SYNCHRONOUS, WIRE_SIGRETURN
        WIRE_SAMPLED, WIRE_FULL
        WIRE_BRANCHES, WIRE_INSTRUCTIONS, WIRE_CYCLES, WIRE_TAKEN, WIRE_TIME
        WIRE_PAD, WIRE_SAMPLE, WIRE_MMAP, WIRE_COMM, WIRE_NATIVE, WIRE_KILLED, WIRE_NAME


cdef layout(const wire_field* fields, size_t count, size_t size):
    """A dtype with the members of a C structure."""
    return np.dtype({
        "names": [fields[i].name.decode() for i in range(count)],
        "formats": [f"u{fields[i].size}" for i in range(count)],
        "offsets": [fields[i].offset for i in range(count)],
        "itemsize": size,
    })


BLOCK_DTYPE = layout(block_fields, BLOCK_FIELDS, sizeof(wire_block))
HEADER_DTYPE = layout(header_fields, HEADER_FIELDS, sizeof(wire_header))
SLOT_BYTES = sizeof(wire_slot)

MAGIC, VERSION = WIRE_MAGIC, WIRE_VERSION
PAYLOAD, PAYLOAD_BITS, EVENT = WIRE_PAYLOAD, WIRE_PAYLOAD_BITS, WIRE_EVENT
NO_BRANCH = WIRE_NO_BRANCH
ASYNCHRONOUS, SYNCHRONOUS, SIGRETURN = WIRE_ASYNCHRONOUS, WIRE_SYNCHRONOUS, WIRE_SIGRETURN
SAMPLED, FULL = WIRE_SAMPLED, WIRE_FULL
BRANCHES, INSTRUCTIONS, CYCLES = WIRE_BRANCHES, WIRE_INSTRUCTIONS, WIRE_CYCLES
TAKEN, TIME = WIRE_TAKEN, WIRE_TIME
PAD, SAMPLE, MMAP, COMM = WIRE_PAD, WIRE_SAMPLE, WIRE_MMAP, WIRE_COMM
NATIVE, KILLED, NAME = WIRE_NATIVE, WIRE_KILLED, WIRE_NAME
