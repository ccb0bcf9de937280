/* A few instructions as Bochs reports them. */
#include "bochs.h"
void bx_instr_initialize(unsigned);
void bx_instr_exit(unsigned);
void bx_instr_reset(unsigned, unsigned);
void bx_instr_before_execution(unsigned, bxInstruction_c *);
void bx_instr_cnear_branch_taken(unsigned, bx_address, bx_address);
void bx_instr_cnear_branch_not_taken(unsigned, bx_address);
void bx_instr_ucnear_branch(unsigned, unsigned, bx_address, bx_address);
void bx_instr_far_branch(unsigned, unsigned, Bit16u, bx_address, Bit16u, bx_address);
void bx_instr_interrupt(unsigned, unsigned);
void bx_instr_exception(unsigned, unsigned, unsigned);
void bx_instr_hwinterrupt(unsigned, unsigned, Bit16u, bx_address);
void bx_instr_wrmsr(unsigned, unsigned, Bit64u);
void bx_instr_hlt(unsigned);
BX_CPU_C bx_cpus[BX_SMP_PROCESSORS];

static bxInstruction_c insn;
static void at(unsigned cpu, bx_address rip, unsigned cpl) {
    BX_CPU(cpu)->prev_rip = rip;
    BX_CPU(cpu)->sregs[BX_SEG_REG_CS].selector.rpl = cpl;
    bx_instr_before_execution(cpu, &insn);
}

int main(int argc, char **) {
    for (unsigned cpu = 0; cpu < 2; cpu++) {
        bx_instr_initialize(cpu);
        bx_instr_reset(cpu, BX_RESET_HARDWARE);
    }
    at(0, 0x1000, 3), bx_instr_ucnear_branch(0, BX_INSTR_IS_CALL, 0x1000, 0x2000);
    at(0, 0x2000, 3), bx_instr_ucnear_branch(0, BX_INSTR_IS_CALL, 0x2000, 0x2005); /* pop rip */
    at(0, 0x2005, 3), bx_instr_cnear_branch_not_taken(0, 0x2005);
    at(0, 0x2007, 3), bx_instr_cnear_branch_taken(0, 0x2007, 0x2100);
    at(0, 0x2100, 3), bx_instr_exception(0, 14, 4), bx_instr_interrupt(0, 14);
    at(0, 0xffff800000001000, 0);
    bx_instr_far_branch(0, BX_INSTR_IS_IRET, 8, 0xffff800000001000, 0x33, 0x2100);
    at(0, 0x2100, 3), bx_instr_hwinterrupt(0, 32, 0x33, 0x2102), bx_instr_interrupt(0, 32);
    at(0, 0xffff800000002000, 0);
    bx_instr_far_branch(0, BX_INSTR_IS_IRET, 8, 0xffff800000002000, 0x33, 0x2102);
    at(0, 0x2102, 3), bx_instr_interrupt(0, 0x80);
    bx_instr_far_branch(0, BX_INSTR_IS_INT, 0x33, 0x2102, 8, 0xffff800000003000);
    at(0, 0xffff800000003000, 0);
    bx_instr_ucnear_branch(0, BX_INSTR_IS_RET, 0xffff800000003000, 0xffff800000003100);
    at(1, 0x5000, 0), bx_instr_ucnear_branch(1, BX_INSTR_IS_JMP_INDIRECT, 0x5000, 0x6000);
    at(1, 0x6000, 0), bx_instr_exception(1, 1, 0), bx_instr_interrupt(1, 1); /* #DB */
    at(1, 0x7000, 0), bx_instr_ucnear_branch(1, BX_INSTR_IS_JMP, 0x7000, 0x7100);
    if (argc > 1) bx_instr_wrmsr(0, 0x14CF, 32); /* the depth: all records are cleared */
    bx_instr_hlt(0);
    bx_instr_exit(0), bx_instr_exit(1);
}
