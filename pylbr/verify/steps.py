"""Sentences for what can happen."""

from __future__ import annotations

from pylbr.verify.models import KINDS

__all__ = ["ACTIONS", "INSTRUCTIONS", "MICRO_STEPS", "STEPS", "sentence"]

#: In the order of `ActionKind`.
ACTIONS = ("step", "host branch", "switch", "enter", "guest branch", "guest", "exit", "open",
           "close", "nmi", "migrate", "pebs record", "enable", "rotate")
#: Kinds that go on with an operation in flight.
MICRO_STEPS = frozenset({0})

#: What a guest does, in the order of `Instruction`.
INSTRUCTIONS = (
    "exits", "reads its records", "sets LBREn", "clears its LBR control", "writes record 0",
    "writes IA32_LBR_DEPTH", "executes XSAVES", "sets LBREn for user branches only",
    "takes an INIT", "takes an SMI", "executes RSM", "takes a #DB",
    "executes VMLAUNCH, L2 going on with its LBR control",
    "executes VMLAUNCH with the controls that give L2 an LBR control of its own",
    "exits to L1", "sets IA32_DEBUGCTL[0]",
    "sets FREEZE_LBRS_ON_PMI", "has a counter overflow", "acknowledges LBR_FRZ",
    "gets a PEBS record with the LBR group", "executes XRSTORS", "is reset",
)

#: (operation, pc of the step that was taken) -> what it is.
STEPS = {
    ("switch", 0): "interrupts off, perf's events of the old task go",
    ("switch", 1): "vcpu_put",
    ("switch", 2): "perf's events of the new task come",
    ("switch", 3): "interrupts on",
    ("switch", 4): "vcpu_load",
    ("enter", 0): "safe point of the run loop",
    ("enter", 1): "interrupts off, look for requests again",
    ("enter", 2): "prepare the entry",
    ("enter", 3): "VM entry",
    ("exit", 0): "VM exit",
    ("exit", 1): "take back what the guest left",
    ("exit", 2): "interrupts on",
    ("exit", 3): "emulate",
    ("open", 0): "IPI: the event is installed",
    ("open", 1): "return from the IPI",
    ("close", 0): "IPI: the event is removed",
    ("close", 1): "return from the IPI",
    ("enable", 0): "IPI: the event is enabled",
    ("enable", 1): "return from the IPI",
    ("rotate", 0): "multiplex timer",
    ("rotate", 1): "return from the timer",
    ("migrate", 0): "vcpu_put",
    ("migrate", 1): "state read out, set in a new vCPU",
    ("migrate", 2): "vcpu_load",
}


def _kind(argument: int) -> str:
    for name, value in KINDS.items():
        if value == argument:
            return name
    return f"{argument:#x}"


def _task(number: int) -> str:
    return "the host's task" if number == 0 else f"vCPU {'ABCD'[number - 1]}"


def _branch(argument: int) -> str:
    what = ("a fault" if argument & 2 else "a return" if argument & 4
            else "a jump" if argument & 8 else "a branch")
    return what + (" in its kernel" if argument & 1 else "")


def sentence(action: tuple[int, int, int], before: dict, after: dict) -> str:
    """What an action is, in words."""
    kind, cpu, argument = action
    name = ACTIONS[kind]
    if name == "step":
        operation, pc, hook_pc, _ = before["frames"][-1]
        text = STEPS[operation, pc]
        return f"    {text}" + (f" (part {hook_pc + 1})" if hook_pc else "")
    where = f"CPU {cpu}: " if cpu else ""
    guest = f"guest {before['guest']}" + ("'s L2" if before["level2"] else "")
    if name == "host branch":
        return f"{where}{before['task']} makes {_branch(argument)} in the host"
    if name == "guest branch":
        return f"{where}{guest} makes {_branch(argument)}"
    if name == "guest":
        return (f"{where}{guest} {INSTRUCTIONS[argument]}"
                + (" (VM exit)" if after["guest"] is None else ""))
    if name == "switch":
        return f"{where}the scheduler picks {_task(argument)}; perf's events of the old task go"
    if name == "enter":
        return f"{where}{before['task']} is to enter its guest: safe point of the run loop"
    if name == "exit":
        cause = "a PMI of the host" if argument else "an interrupt"
        return f"{where}{cause}: VM exit of {guest}"
    if name == "open":
        return f"{where}IPI: perf opens an event, {_kind(argument)}"
    if name == "close":
        return f"{where}IPI: perf closes its event"
    if name == "nmi":
        return f"{where}" + ("another NMI: its handler branches" if argument
                             else "PMI: perf reads a sample")
    if name == "enable":
        return f"{where}IPI: perf enables its event that is in ERROR"
    if name == "rotate":
        return f"{where}the multiplex timer rotates perf's flexible events"
    if name == "pebs record":
        return f"{where}PEBS writes a sample of perf's event"
    return f"{where}user space migrates {before['task']}: vcpu_put"
