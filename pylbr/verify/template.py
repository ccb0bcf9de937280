"""`template`: perf asks, and the hypervisor yields at its next safe point.

Run it:

    pylbr verify ./template.py                        every interleaving, and what breaks
    pylbr verify ./template.py --story "guest wrmsr LBR_CTL; IPI opens cpu-exclude; vm-entry"

Leave out a line and run it again: the story of what then breaks is printed.

A hook runs one micro-step.  One that takes `part` is called with 0 and returns the number with
which it is called next, as the next micro-step, or None when it is done: an interrupt may come in
between where interrupts are on, an NMI anywhere.  What a policy remembers it keeps in `cpu` and
`vcpu`, never in itself: the search goes back and forth between states.

hook                                          when                                   interrupts
perf_update(system, cpu)                      the scheduled events have changed      off
task_out(system, cpu)                         a task leaves: perf's part             off
vcpu_put(system, cpu, vcpu, part)             it is a vCPU's thread: KVM's part      off
task_in(system, cpu)                          a task comes: perf's part              off
vcpu_load(system, cpu, vcpu, part)            it is a vCPU's thread: KVM's part      on
safe_point(system, cpu, vcpu, part)           the run loop serves requests           on
pending(system, cpu, vcpu)                    must it do so once more?               off
before_entry(system, cpu, vcpu, part)         the last steps before VM entry         off
after_exit(system, cpu, vcpu, part)           the first steps after VM exit          off
guest_traced(system, cpu)                     are the guest's branches the host's?   -
exits(system, cpu, vcpu, instruction)         does this instruction exit?            -

A hook that is not defined is that of the policies in which the registers have one owner at a time;
`cpu.default("task_in")` calls it.  `help(pylbr.arbitration.plain)` has all that `cpu` and `vcpu`
can do.
"""

from __future__ import annotations

from pylbr.arbitration.plain import UNOWNED, CpuView, PlainPolicy, SystemView, VcpuView


class Template(PlainPolicy):
    """Ask, and be served at the next VM entry or when the vCPU is put."""

    name = "template"
    # What it documents: records may be missing from a guest's stack, and from a sample
    guest_short = host_short = True
    serves_at_entry = True              # a VM entry is a safe point: P22 holds it to that
    nested_controls = guest_pebs = True
    # Properties that it claims; without this line all of them, and `pylbr verify` exits with 1
    # if one is broken.
    # claims = ("P1", "P2")

    def safe_point(
        self, system: SystemView, cpu: CpuView, vcpu: VcpuView, part: int
    ) -> int | None:
        """If perf waits, give it the registers: save, wipe, attach."""
        if part == 0 and not (cpu.wanted and cpu.owned_by(vcpu)):
            return None
        return cpu.yield_guest(vcpu, part)

    def pending(self, system: SystemView, cpu: CpuView, vcpu: VcpuView) -> bool:
        """An interrupt may have asked since the safe point."""
        return cpu.wanted

    def before_entry(
        self, system: SystemView, cpu: CpuView, vcpu: VcpuView, part: int
    ) -> int | None:
        """The guest gets registers without an owner, or is entered without."""
        if cpu.owner == UNOWNED and vcpu.uses:
            cpu.load(vcpu)
        if cpu.owned_by(vcpu):
            cpu.admit(vcpu)
        else:
            cpu.keep_out(vcpu)
        return None


POLICIES = {"template": Template}
