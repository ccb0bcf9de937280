from enum import IntEnum

class EventFlag(IntEnum):
    PINNED = 1
    EXCLUDE_GUEST = 2
    EXCLUDE_HOST = 4
    VLBR = 8
    USER_ONLY = 16
    CALL_STACK = 32
    PEBS = 128
