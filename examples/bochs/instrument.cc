// LBRs in Bochs 2.6.8 and later: its instrumentation hooks over liblbrcore.
//
//   cp -r instrument/stubs instrument/lbr && cd instrument/lbr
//   sed 's/^void bx_instr/__attribute__((weak)) &/' instrument.cc > stubs.cc   # the other hooks
//   sed -i 's/instrument\.o/instrument.o stubs.o/' Makefile.in && cp .../instrument.cc . && cd ../..
//   export CXXFLAGS="-O2 $(pkg-config --cflags lbrcore)" LIBS="$(pkg-config --libs lbrcore)"
//   ./configure --enable-x86-64 --enable-instrumentation=instrument/lbr && make
//
// The environment's LBR_MODEL, and LBR_CTL (IA32_DEBUGCTL of legacy models), hold from reset on; each
// CPU's records are printed when it ends.  In 64-bit code offsets in CS are linear addresses.
#include "bochs.h"
#include "cpu/cpu.h"

#include <cinttypes>
#include <lbrcore_cpu.h>

namespace {
struct vcpu {
    lbr_cpu *lbr;
    bx_address from;      // of an exception or interrupt whose handler is not entered yet
    int event, cpl;       // its class or -1; privilege level as of the last instruction
    uint32_t since;       // instructions since the last branch
} vcpus[BX_SMP_PROCESSORS];

int cpl_of(unsigned cpu) { return BX_CPU(cpu)->sregs[BX_SEG_REG_CS].selector.rpl; }

void branch(unsigned cpu, int cls, bx_address from, bx_address to) {
    vcpu &v = vcpus[cpu];
    lbr_branch one = {};
    one.from = from, one.to = to, one.cls = uint8_t(cls);
    one.instructions = one.cycles = v.since;
    one.cpl_from = uint8_t(v.cpl), one.cpl_to = uint8_t(v.cpl = cpl_of(cpu));
    v.since = 0;
    lbr_cpu_branch(v.lbr, &one); // LBR_PMI: Bochs has no way for a hook to inject it
}

} // namespace

void bx_instr_initialize(unsigned cpu) {
    const char *name = getenv("LBR_MODEL");
    int result = lbr_cpu_new(&vcpus[cpu].lbr, name ? name : "sapphire-rapids");
    if (result == LBR_OK) return;
    fprintf(stderr, "LBR_MODEL=%s: %s\n", name, lbr_strerror(result));
    exit(1);
}

void bx_instr_reset(unsigned cpu, unsigned type) {
    lbr_cpu *lbr = vcpus[cpu].lbr;
    const char *ctl = getenv("LBR_CTL");
    bool arch = lbr->model->flags & LBR_MODEL_ARCH;
    lbr_fault why;
    vcpus[cpu].event = -1;
    if (type != BX_RESET_HARDWARE) return void(lbr_cpu_init(lbr));
    lbr_cpu_reset(lbr, 0, 0);
    uint64_t value = ctl ? strtoull(ctl, 0, 0) : arch ? 0x7F0007 : 1;
    if (lbr_wrmsr(lbr, arch ? 0x14CE : 0x1D9, value, &why) == LBR_OK) return;
    fprintf(stderr, "LBR_CTL=%s: %s\n", ctl, why.rule);
    exit(1);
}

void bx_instr_exit(unsigned cpu) {
    lbr_entry entry[LBR_MAX_DEPTH];
    uint32_t count = lbr_cpu_records(vcpus[cpu].lbr, entry);
    for (uint32_t i = 0; i < count && entry[i].from; i++)
        fprintf(stderr, "cpu %u: %2u %#" PRIx64 " -> %#" PRIx64 " type %u\n", cpu, i, entry[i].from,
                entry[i].to, unsigned(entry[i].info >> 56 & 15));
    lbr_cpu_destroy(vcpus[cpu].lbr);
}

void bx_instr_before_execution(unsigned cpu, bxInstruction_c *) {
    vcpu &v = vcpus[cpu];
    if (v.event >= 0) branch(cpu, v.event, v.from, BX_CPU(cpu)->prev_rip);
    v.event = -1;
    v.cpl = cpl_of(cpu), v.since++;
}

void bx_instr_cnear_branch_taken(unsigned cpu, bx_address from, bx_address to) {
    branch(cpu, LBR_COND, from, to);
}
void bx_instr_cnear_branch_not_taken(unsigned cpu, bx_address from) {
    branch(cpu, LBR_NOT_TAKEN, from, 0);
}
void bx_instr_ucnear_branch(unsigned cpu, unsigned what, bx_address from, bx_address to) {
    branch(cpu, what == BX_INSTR_IS_CALL ? (to == from + 5 ? LBR_ZERO_CALL : LBR_NEAR_REL_CALL)
                : what == BX_INSTR_IS_CALL_INDIRECT ? LBR_NEAR_IND_CALL
                : what == BX_INSTR_IS_JMP_INDIRECT ? LBR_NEAR_IND_JMP
                : what == BX_INSTR_IS_RET ? LBR_NEAR_RET : LBR_NEAR_REL_JMP, from, to);
}
void bx_instr_far_branch(unsigned cpu, unsigned what, Bit16u, bx_address from, Bit16u,
                         bx_address to) {
    vcpus[cpu].event = -1; // INT n, which bx_instr_interrupt has announced
    branch(cpu, what == BX_INSTR_IS_IRET ? LBR_IRET : what == BX_INSTR_IS_INT ? LBR_SOFT_INT
                : what == BX_INSTR_IS_SYSCALL || what == BX_INSTR_IS_SYSENTER ? LBR_SYSCALL
                : what == BX_INSTR_IS_SYSRET || what == BX_INSTR_IS_SYSEXIT ? LBR_SYSRET
                : LBR_FAR_BRANCH, from, to);
}
void bx_instr_exception(unsigned cpu, unsigned, unsigned) {
    vcpus[cpu].event = LBR_EXCEPTION, vcpus[cpu].from = BX_CPU(cpu)->prev_rip;
}
void bx_instr_hwinterrupt(unsigned cpu, unsigned, Bit16u, bx_address from) {
    vcpus[cpu].event = LBR_INTERRUPT, vcpus[cpu].from = from;
}
void bx_instr_interrupt(unsigned cpu, unsigned vector) {
    if (vector != 1) return;
    lbr_cpu_debug_exception(vcpus[cpu].lbr); // #DB: recording ends before its handler
    vcpus[cpu].event = -1;
}
void bx_instr_wrmsr(unsigned cpu, unsigned index, Bit64u value) {
    lbr_wrmsr(vcpus[cpu].lbr, index, value, NULL); // of others it says #GP, which is Bochs's matter
}
