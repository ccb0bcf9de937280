"""One run of a model, action by action: for stories, tests and the selftests."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from pylbr.arbitration.microsteps cimport EXPOSED_NONE, OWNER_GUEST, OWNER_HOST, OWNER_NONE, Cpu
from pylbr.arch.bits cimport DEBUGCTL_FREEZE_LBRS_ON_PMI, DEBUGCTL_LBR
from pylbr.cpu.hardware cimport Image, hw_peek
from pylbr.verify.codec cimport MAX_STATE, encode
from pylbr.verify.explore cimport Model
from pylbr.verify.world cimport MAX_ACTIONS, Action, Ideal, World, apply, enabled

from pylbr.arbitration.microsteps import Exposure, Operation, Step
from pylbr.verify.models import name_of, names

cdef dict _OPERATIONS = names(Operation, "OP_")
cdef dict _STEPS = names(Step)
cdef dict _EXPOSED = names(Exposure, "EXPOSED_")


def _who(int owner):
    return "host" if owner == 0 else "ABCD"[owner - 1]


cdef list _records(const Image* image):
    """Newest first, empty ones left out: «A3» is guest A's record number 3, «hk» a kernel's."""
    shown = []
    cdef size_t i
    for i in range(image.depth):
        tag = image.entry[i].from_
        if tag:
            owner = <int> (tag >> 40) - 1
            mark = "k" if (tag >> 39) & 1 else ""
            shown.append(f"{_who(owner) if owner else 'h'}{mark}{tag & 0xFFFF}")
        else:
            shown.append("-")
    return shown


cdef class Run:
    """Run(model)\n--\n
    A run of a model, from its initial state.

    Parameters
    ----------
    model : Model

    Attributes
    ----------
    model : Model
    """

    cdef readonly Model model
    cdef World world

    def __cinit__(self, Model model not None):
        self.model = model
        self.world = model.initial

    def copy(self):
        """Return an independent run in the present state."""
        cdef Run other = Run(self.model)
        other.world = self.world
        return other

    def actions(self):
        """Return the actions that can happen next, a list of (kind, cpu, argument)."""
        cdef Action found[MAX_ACTIONS]
        cdef int n = enabled(&self.world, self.model.policy, &self.model.options, found)
        return [(found[i].kind, found[i].cpu, found[i].arg) for i in range(n)]

    def apply(self, action):
        """Take an action.

        Parameters
        ----------
        action : (int, int, int)
            Kind, CPU and argument; one of `actions`.

        Returns
        -------
        int
            Properties that it breaks, as bits.

        Raises
        ------
        ValueError
            The action is not one of `actions`.
        ConfigurationError
            A hook of a policy in Python failed.
        """
        cdef Action a
        a.kind, a.cpu, a.arg = action
        if tuple(action) not in self.actions():
            raise ValueError(f"action {tuple(action)} cannot happen here")
        broken = apply(&self.world, self.model.policy, &self.model.options, a)
        self.model.policy.check()
        return broken

    def fingerprint(self):
        """Return the canonical bytes of the present state."""
        cdef uint8_t state[MAX_STATE]
        cdef int length
        memset(state, 0, sizeof(state))
        length = encode(&self.world, self.model.policy, state, True)
        return <bytes> state[:(length + 7) & ~7]

    def cpu(self, int number=0):
        """Return the state of a CPU, a dict of names and plain values.

        ``frames`` are the operations in flight: (operation, micro-step that comes next, part of
        it, argument).  IndexError if there is no such CPU.
        """
        if not 0 <= number < self.world.system.cpus:
            raise IndexError(f"there is no CPU {number}")
        cdef Cpu* c = &self.world.system.cpu[number]
        cdef Image image
        hw_peek(&c.hw, &image)
        frames = [(name_of(_OPERATIONS, c.frame[i].op), name_of(_STEPS, c.frame[i].step),
                   c.frame[i].part, c.frame[i].arg) for i in range(c.frames)]
        return {
            "task": "host" if c.task == 0 else f"vCPU {_who(c.task)}",
            "guest": _who(c.guest) if c.guest else None,
            "level2": bool(c.guest and self.world.system.vcpu[c.guest - 1].level2),
            "owner": ("unowned" if c.owner == OWNER_NONE else "host" if c.owner == OWNER_HOST
                      else f"guest {_who(1 + c.owner - OWNER_GUEST)}"),
            "irqs": bool(c.irqs), "wanted": bool(c.wanted), "frames": frames,
            "records": _records(&image), "recording": bool(c.hw.lbr.active),
            "control": c.hw.lbr.ctl, "debugctl": c.hw.debugctl,
            "events": c.perf.hosts, "attached": bool(c.perf.granted),
        }

    def seen(self):
        """Return what the last action exposed (how, to which guest, records, cut), or None."""
        cdef Image image
        if self.world.system.seen.exposure == EXPOSED_NONE:
            return None
        image = self.world.system.seen.image
        image.depth = self.world.system.depth
        return {
            "exposure": name_of(_EXPOSED, self.world.system.seen.exposure),
            "guest": _who(self.world.system.seen.guest) if self.world.system.seen.guest else None,
            "records": _records(&image), "control": image.ctl,
            "cut": bool(self.world.system.seen.cut),
        }

    def ideal(self, int guest):
        """Return the records that guest `guest` (0 is A) should see, newest first."""
        return _records(&self.world.guest[guest].image)

    def ideal_control(self, int guest):
        """Return what guest `guest` should read of its control registers: ``control``, of the
        records, and ``debugctl``."""
        cdef const Ideal* ideal = &self.world.guest[guest]
        debugctl = DEBUGCTL_FREEZE_LBRS_ON_PMI if ideal.freeze else 0
        if self.model.policy.legacy and ideal.on:
            debugctl |= DEBUGCTL_LBR
        return {"control": ideal.image.ctl, "debugctl": debugctl}

    def ideal_host(self, int cpu=0):
        """Return the records that a sample on `cpu` should show, newest first."""
        return _records(&self.world.host[cpu].image)
