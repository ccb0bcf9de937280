"""Policies in plain Python: the hooks of `pylbr.arbitration.microsteps`.

A policy derives from `PlainPolicy` and defines the hooks that it has of its own; each of the others
is that of the policies with one owner (`pylbr.arbitration.single_owner`).  A hook is given views of
the system, the processor and the vCPU; they are valid until it returns.
"""

from libc.stdint cimport uint8_t

from lbrcore.control cimport lbr_set_frozen
from pylbr.arbitration.microsteps cimport (
    DONE, OWNER_GUEST, OWNER_HOST, OWNER_NONE, Cpu, System, Vcpu, vcpu_index,
)
from pylbr.arbitration.single_owner cimport SingleOwner
from pylbr.arch.bits cimport CTL_LBREN
from pylbr.cpu.hardware cimport hw_reset_records, hw_set_ctl
from pylbr.host.perf cimport CALL_STACK, EXCLUDE_GUEST, FILTER_EXCLUSION, FRESH_FLAGS

from pylbr.errors import ConfigurationError

#: Values of `CpuView.owner`; a guest's is `UNOWNED` + 2 + its number.
UNOWNED, HOST, FIRST_GUEST = OWNER_NONE, OWNER_HOST, OWNER_GUEST

#: What a policy documents, as class attributes; see `Policy`.
DOCUMENTED = (
    "guest_short", "guest_flag", "host_short", "host_flag", "serves_at_entry",
    "refuses_guest_tracing", "nested_controls", "guest_pebs",
)
#: Hook -> what it takes.
HOOKS = {
    "perf_update": "system, cpu", "task_out": "system, cpu", "task_in": "system, cpu",
    "vcpu_load": "system, cpu, vcpu, part", "vcpu_put": "system, cpu, vcpu, part",
    "safe_point": "system, cpu, vcpu, part", "pending": "system, cpu, vcpu",
    "before_entry": "system, cpu, vcpu, part", "after_exit": "system, cpu, vcpu, part",
    "guest_traced": "system, cpu", "exits": "system, cpu, vcpu, instruction",
}


cdef class SystemView:
    """SystemView()\n--\n
    All processors and vCPUs, as a hook of a policy in Python sees them.
    """

    cdef System* s

    @property
    def cpus(self):
        """Number of processors."""
        return self.s.cpus

    @property
    def guests(self):
        """Number of vCPUs."""
        return self.s.guests

    @property
    def depth(self):
        """Entries of a guest's stack."""
        return self.s.depth


cdef class VcpuView:
    """VcpuView()\n--\n
    A vCPU, as the hypervisor keeps it; valid until the hook returns.
    """

    cdef System* s
    cdef Vcpu* v

    @property
    def number(self):
        """0 for guest A."""
        return vcpu_index(self.s, self.v)

    @property
    def uses(self):
        """The guest has touched an LBR register."""
        return bool(self.v.uses)

    @property
    def recording(self):
        """The guest has set LBREn."""
        return bool(self.v.ctl & CTL_LBREN)

    @property
    def lost(self):
        """Reported to the guest: records were lost; a write of IA32_LBR_DEPTH clears it."""
        return bool(self.v.lost)

    @lost.setter
    def lost(self, bint value):
        self.v.lost = value

    @property
    def passthrough(self):
        """The records' MSRs are not intercepted."""
        return bool(self.v.passthrough)

    @passthrough.setter
    def passthrough(self, bint value):
        self.v.passthrough = value

    @property
    def xss_exit(self):
        """XSAVES and XRSTORS of component 15 exit."""
        return bool(self.v.xss_exit)

    @xss_exit.setter
    def xss_exit(self, bint value):
        self.v.xss_exit = value


cdef class CpuView:
    """CpuView()\n--\n
    A processor with its LBR registers, and perf's state there; valid until the hook returns.
    """

    cdef System* s
    cdef Cpu* c
    cdef PlainPolicy policy

    # State

    @property
    def owner(self):
        """Whose records the registers hold: `UNOWNED`, `HOST` or `FIRST_GUEST` + number."""
        return self.c.owner

    @owner.setter
    def owner(self, int value):
        self.c.owner = <uint8_t> value

    @property
    def wanted(self):
        """perf has asked for the registers and waits for them."""
        return bool(self.c.wanted)

    @wanted.setter
    def wanted(self, bint value):
        self.c.wanted = value

    @property
    def irqs(self):
        """Interrupts are on."""
        return bool(self.c.irqs)

    @irqs.setter
    def irqs(self, bint value):
        self.c.irqs = value

    @property
    def scratch(self):
        """A number, 0 to 255, that outlives a micro-step: the only state of a policy."""
        return self.c.scratch

    @scratch.setter
    def scratch(self, int value):
        self.c.scratch = <uint8_t> value

    @property
    def instruction(self):
        """`Instruction` of the guest that is being emulated."""
        return self.c.frame[self.c.frames - 1].arg if self.c.frames else 0

    @property
    def hosts(self):
        """Scheduled events of the host that use the LBRs."""
        return self.c.perf.hosts

    @property
    def attached(self):
        """perf's state is in the registers."""
        return bool(self.c.perf.granted)

    @property
    def traces_guests(self):
        """An event of the host does not exclude guests."""
        return bool(self.c.perf.hosts and not self.c.perf.flags & EXCLUDE_GUEST)

    @property
    def call_stack(self):
        """The scheduled events record call stacks, kept with their task."""
        return bool(self.c.perf.flags & CALL_STACK)

    @property
    def changed(self):
        """The events now scheduled use another branch filter than those before."""
        return bool(self.c.perf.fresh & FRESH_FLAGS)

    @property
    def cut(self):
        """The host's records began late: its samples are marked as incomplete."""
        return bool(self.c.perf.cut)

    @cut.setter
    def cut(self, bint value):
        self.c.perf.cut = value

    def owned_by(self, VcpuView vcpu not None):
        """True if this vCPU owns the registers."""
        return self.c.owner == OWNER_GUEST + vcpu_index(self.s, vcpu.v)

    # What can be done

    def attach(self):
        """Give perf the registers, which must have no owner."""
        self.policy.attach(self.s, self.c)

    def detach(self):
        """Take the registers from perf, and wipe them."""
        self.policy.detach(self.s, self.c)

    def wipe(self):
        """Empty the registers by an XRSTORS of the initial state."""
        self.policy.wipe(self.s, self.c)

    def reset_records(self):
        """Empty the records by a write of IA32_LBR_DEPTH, which leaves LER."""
        hw_reset_records(&self.c.hw)

    def restore_control(self):
        """Write perf's control value back to the register."""
        hw_set_ctl(&self.c.hw, self.c.perf.programmed)

    def load(self, VcpuView vcpu not None):
        """Give a guest the registers, which must have no owner: XRSTORS of its image, LBREn off."""
        self.policy.load_guest(self.s, self.c, vcpu.v)

    def save(self, VcpuView vcpu not None):
        """Save the guest's records into its image by XSAVES."""
        self.policy.save_guest(self.s, self.c, vcpu.v)

    def yield_guest(self, VcpuView vcpu not None, int part):
        """End the guest's ownership in three parts: save, wipe, attach perf if it has an event.

        Returns
        -------
        int or None
            Number of the next part, for the hook to return; None after the last.
        """
        return _part(self.policy.yield_guest(self.s, self.c, vcpu.v, part))

    def admit(self, VcpuView vcpu not None):
        """Prepare the guest's VM entry as owner of the registers."""
        self.policy.admit(self.c, vcpu.v)

    def keep_out(self, VcpuView vcpu not None):
        """Prepare the guest's VM entry without the registers: accesses exit, and its image loses
        its records if it records."""
        self.policy.keep_out(self.c, vcpu.v)

    def thaw(self):
        """Clear LBR_FRZ."""
        lbr_set_frozen(&self.c.hw.lbr, 0)

    def default(self, str hook, VcpuView vcpu=None, int part=0):
        """Run the default of a hook, which applies where a policy does not define it.

        Parameters
        ----------
        hook : str
            Name of the hook, out of `HOOKS`.
        vcpu : VcpuView, optional
            Needed by the hooks that take a vCPU.
        part : int
            The hook's `part`; the instruction, for ``exits``.

        Returns
        -------
        int, bool or None
            As the hook itself.

        Raises
        ------
        TypeError
            The hook needs a vCPU, and none was passed.
        """
        cdef Vcpu* v = vcpu.v if vcpu is not None else NULL
        if v == NULL and "vcpu" in HOOKS[hook]:
            raise TypeError(f"{hook} needs a vCPU")
        if hook == "perf_update":
            return SingleOwner.perf_update(self.policy, self.s, self.c)
        if hook == "task_out":
            return SingleOwner.task_out(self.policy, self.s, self.c)
        if hook == "task_in":
            return SingleOwner.task_in(self.policy, self.s, self.c)
        if hook == "vcpu_put":
            return _part(SingleOwner.vcpu_put(self.policy, self.s, self.c, v, part))
        if hook == "after_exit":
            return _part(SingleOwner.after_exit(self.policy, self.s, self.c, v, part))
        if hook == "guest_traced":
            return SingleOwner.guest_traced(self.policy, self.s, self.c)
        if hook == "exits":
            return SingleOwner.exits(self.policy, self.s, self.c, v, part)
        return None if hook in ("vcpu_load", "safe_point", "before_entry") else False


cdef object _part(int result):
    return None if result == DONE else result


cdef class PlainPolicy(SingleOwner):
    """PlainPolicy()\n--\n
    Base of policies in plain Python: derive from it, and define the hooks that differ.

    Class attributes are `name`, `claims`, and those of `DOCUMENTED` that are true; their meanings
    are described in `pylbr.arbitration.Policy`.  A hook runs one micro-step.  One that takes
    `part` is called with 0, then with the number that it returned, as the next micro-step, until
    it returns None; interrupts may come in between where they are on, an NMI anywhere.  A policy
    keeps no state of its own: what outlives a micro-step is in `cpu` and `vcpu`.  A hook that is
    not defined is the default, that of the policies with one owner; ``cpu.default(name)`` runs it.
    A function whose name does not begin with _ and is no hook's is refused.

    Hooks
    -----
    perf_update(system, cpu)
        The set of scheduled events has changed; interrupts are off.  Default: attach perf to
        registers without an owner, else set ``cpu.wanted``; detach it with its last event.
    task_out(system, cpu)
        A task leaves the CPU, perf's part; interrupts are off.  Default: save a call stack with
        the task, reschedule.
    vcpu_put(system, cpu, vcpu, part)
        The thread of a vCPU leaves the CPU, or is migrated, KVM's part; interrupts are off.
        Default: ``cpu.yield_guest`` if the guest owns the registers.
    task_in(system, cpu)
        A task comes to the CPU, perf's part; interrupts are off.  Default: reschedule, reset the
        records.
    vcpu_load(system, cpu, vcpu, part)
        The thread of a vCPU comes to the CPU, KVM's part; interrupts are on.  Default: nothing.
    safe_point(system, cpu, vcpu, part)
        The run loop serves requests; interrupts are on.  Default: nothing.
    pending(system, cpu, vcpu)
        Return True if `safe_point` must run once more; interrupts are off.  Default: False.
    before_entry(system, cpu, vcpu, part)
        The last steps before VM entry; interrupts are off.  Default: nothing.
    after_exit(system, cpu, vcpu, part)
        The first steps after VM exit; interrupts are off.  Default: save the guest's control
        value, write perf's back.
    guest_traced(system, cpu)
        Return True if the branches that the guest takes now belong to the host's records.
        Default: perf owns the registers and does not exclude guests.
    exits(system, cpu, vcpu, instruction)
        Return True if this `Instruction` of the running guest exits.  Default: what is not
        passed through.

    Attributes
    ----------
    problem : ConfigurationError or None
        What a hook raised; from then on the defaults apply.
    """

    cdef SystemView system_view
    cdef CpuView cpu_view
    cdef VcpuView vcpu_view
    cdef dict hook

    def __init__(self):
        kind = type(self)
        self.name = getattr(kind, "name") if isinstance(kind.name, str) else kind.__name__
        for attribute in DOCUMENTED:
            if getattr(kind, attribute) is True:
                self._document(attribute)
        claims = getattr(kind, "claims")
        self.claims = claims if isinstance(claims, tuple) else None
        self.sharing = FILTER_EXCLUSION
        self._refuse_what_is_no_hook()
        self.hook = {name: getattr(self, name) for name in HOOKS if hasattr(self, name)}
        self.system_view, self.cpu_view = SystemView(), CpuView()
        self.vcpu_view = VcpuView()
        self.cpu_view.policy = self

    def _refuse_what_is_no_hook(self):
        """A misspelt hook would never run."""
        cdef object kinds = type(self).__mro__
        for kind in kinds[:kinds.index(PlainPolicy)]:
            for name, value in vars(kind).items():
                if callable(value) and name[0] != "_" and name not in HOOKS:
                    raise ConfigurationError(
                        f"policy {self.name}: there is no hook {name!r}; hooks are "
                        f"{', '.join(HOOKS)}; other functions begin with _")

    def _document(self, str attribute):
        if attribute == "guest_short":
            self.guest_short = True
        elif attribute == "guest_flag":
            self.guest_flag = True
        elif attribute == "host_short":
            self.host_short = True
        elif attribute == "host_flag":
            self.host_flag = True
        elif attribute == "serves_at_entry":
            self.serves_at_entry = True
        elif attribute == "refuses_guest_tracing":
            self.refuses_guest_tracing = True
        elif attribute == "nested_controls":
            self.nested_controls = True
        elif attribute == "guest_pebs":
            self.guest_pebs = True

    cdef object _call(self, str hook, System* s, Cpu* c, Vcpu* v, int last):
        """The answer of a hook; None after it raised."""
        self.system_view.s = self.cpu_view.s = self.vcpu_view.s = s
        self.cpu_view.c = c
        self.vcpu_view.v = v
        try:
            if v == NULL:
                return self.hook[hook](self.system_view, self.cpu_view)
            if last < 0:
                return self.hook[hook](self.system_view, self.cpu_view, self.vcpu_view)
            return self.hook[hook](self.system_view, self.cpu_view, self.vcpu_view, last)
        except Exception as error:
            self.fail(f"policy {self.name}: {hook}: {type(error).__name__}: {error}")
            self.hook = {}
        return None

    cdef int _next(self, str hook, System* s, Cpu* c, Vcpu* v, int part):
        answer = self._call(hook, s, c, v, part)
        if answer is None:
            return DONE
        if not isinstance(answer, int) or not 0 < answer < 200:
            self.fail(f"policy {self.name}: {hook}: it returns {answer!r}, not the number of its "
                      f"next part, 1 to 199, or None")
            self.hook = {}
            return DONE
        return answer

    cdef void perf_update(self, System* s, Cpu* c) noexcept nogil:
        with gil:
            if "perf_update" in self.hook:
                self._call("perf_update", s, c, NULL, -1)
                return
        SingleOwner.perf_update(self, s, c)

    cdef void task_out(self, System* s, Cpu* c) noexcept nogil:
        with gil:
            if "task_out" in self.hook:
                self._call("task_out", s, c, NULL, -1)
                return
        SingleOwner.task_out(self, s, c)

    cdef void task_in(self, System* s, Cpu* c) noexcept nogil:
        with gil:
            if "task_in" in self.hook:
                self._call("task_in", s, c, NULL, -1)
                return
        SingleOwner.task_in(self, s, c)

    cdef int vcpu_load(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        with gil:
            if "vcpu_load" in self.hook:
                return self._next("vcpu_load", s, c, v, pc)
        return SingleOwner.vcpu_load(self, s, c, v, pc)

    cdef int vcpu_put(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        with gil:
            if "vcpu_put" in self.hook:
                return self._next("vcpu_put", s, c, v, pc)
        return SingleOwner.vcpu_put(self, s, c, v, pc)

    cdef int safe_point(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        with gil:
            if "safe_point" in self.hook:
                return self._next("safe_point", s, c, v, pc)
        return SingleOwner.safe_point(self, s, c, v, pc)

    cdef bint pending(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        with gil:
            if "pending" in self.hook:
                return bool(self._call("pending", s, c, v, -1))
        return SingleOwner.pending(self, s, c, v)

    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        with gil:
            if "before_entry" in self.hook:
                return self._next("before_entry", s, c, v, pc)
        return SingleOwner.before_entry(self, s, c, v, pc)

    cdef int after_exit(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        with gil:
            if "after_exit" in self.hook:
                return self._next("after_exit", s, c, v, pc)
        return SingleOwner.after_exit(self, s, c, v, pc)

    cdef bint guest_traced(self, System* s, Cpu* c) noexcept nogil:
        with gil:
            if "guest_traced" in self.hook:
                return bool(self._call("guest_traced", s, c, NULL, -1))
        return SingleOwner.guest_traced(self, s, c)

    cdef bint exits(self, System* s, Cpu* c, Vcpu* v, int instruction) noexcept nogil:
        with gil:
            if "exits" in self.hook:
                return bool(self._call("exits", s, c, v, instruction))
        return SingleOwner.exits(self, s, c, v, instruction)
