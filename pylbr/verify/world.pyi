from enum import IntEnum

class ActionKind(IntEnum):
    STEP = 0
    HOST_BRANCH = 1
    SWITCH = 2
    ENTER = 3
    GUEST_BRANCH = 4
    GUEST = 5
    EXIT = 6
    OPEN = 7
    CLOSE = 8
    NMI = 9
    MIGRATE = 10
    PEBS_RECORD = 11
    ENABLE = 12
    ROTATE = 13
    OVERFLOW = 14

class Branch(IntEnum):
    KERNEL = 1
    FAULT = 2
    RETURN = 4
    JUMP = 8

class Feature(IntEnum):
    F_NMI = 1
    F_MIGRATE = 2
    F_XSAVES = 4
    F_WRITE = 8
    F_DEPTH = 16
    F_KERNEL = 32
    F_FAULT = 64
    F_SMM = 128
    F_INIT = 256
    F_DB = 512
    F_NMI_BRANCH = 1024
    F_NESTED = 2048
    F_PEBS = 8192
    F_ROTATE = 16384
    F_ENABLE = 32768
    F_XRSTORS = 65536
    F_RESET = 131072
    F_STACK = 262144
    F_VPMI = 4096
    F_HOST_FREEZE = 524288
