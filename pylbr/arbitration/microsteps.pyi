from enum import IntEnum

from typing_extensions import disjoint_base

class Operation(IntEnum):
    OP_NONE = 0
    OP_SWITCH = 1
    OP_ENTER = 2
    OP_EXIT = 3
    OP_OPEN = 4
    OP_CLOSE = 5
    OP_MIGRATE = 6
    OP_ENABLE = 7
    OP_ROTATE = 8

class Step(IntEnum):
    TASK_OUT = 8
    VCPU_PUT = 9
    TASK_IN = 10
    SWITCH_IRQS_ON = 11
    VCPU_LOAD = 12
    SAFE_POINT = 16
    RECHECK = 17
    PREPARE_ENTRY = 18
    VM_ENTRY = 19
    VM_EXIT = 24
    AFTER_EXIT = 25
    EXIT_IRQS_ON = 26
    EMULATE = 27
    RESCHEDULE = 32
    IRQ_RETURN = 33
    MIGRATE_PUT = 48
    MOVE_STATE = 49
    MIGRATE_LOAD = 50

class Instruction(IntEnum):
    EXIT_IRQ = 0
    GUEST_READ = 1
    GUEST_ENABLE = 2
    GUEST_DISABLE = 3
    GUEST_WRITE = 4
    GUEST_DEPTH = 5
    GUEST_XSAVES = 6
    GUEST_USER_FILTER = 7
    GUEST_INIT = 8
    GUEST_SMI = 9
    GUEST_RSM = 10
    GUEST_DB = 11
    GUEST_VMLAUNCH = 12
    GUEST_VMLAUNCH_CONTROLS = 13
    GUEST_VMCALL = 14
    GUEST_DEBUGCTL = 15
    GUEST_FREEZE = 16
    GUEST_PMI = 17
    GUEST_ACK = 18
    GUEST_PEBS = 19
    GUEST_XRSTORS = 20
    GUEST_RESET = 21
    EXIT_PMI = 22

class Exposure(IntEnum):
    EXPOSED_NONE = 0
    EXPOSED_RDMSR = 1
    EXPOSED_XSAVES = 2
    EXPOSED_SAVED_STATE = 3
    EXPOSED_SAMPLE = 4
    EXPOSED_PEBS = 5

EVENT_ON_TASK: int

@disjoint_base
class Policy:
    name: str
    problem: str | None
    claims: tuple[str, ...] | None
    by_design: tuple[str, ...] | None
    legacy: bool
    guest_short: bool
    guest_flag: bool
    host_short: bool
    host_flag: bool
    serves_at_entry: bool
    sharing: int
    refuses_guest_tracing: bool
    any_depth: bool
    mediated: bool
    freeze_clears_enable: bool
    keeps_debugctl: bool
    lazy: bool
    guest_pebs: bool
    nested_controls: bool
    def __new__(cls) -> Policy: ...
    def check(self) -> None: ...
