/* A double of what Bochs gives its instrumentation: types, the CPU, kinds of branch. */
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#define BX_INSTRUMENTATION 1
#define BX_SMP_PROCESSORS 2
typedef uint64_t bx_address, Bit64u;
typedef uint16_t Bit16u;
enum { BX_SEG_REG_CS = 1, BX_RESET_SOFTWARE = 10, BX_RESET_HARDWARE = 11 };
enum { BX_INSTR_IS_JMP = 10, BX_INSTR_IS_JMP_INDIRECT, BX_INSTR_IS_CALL, BX_INSTR_IS_CALL_INDIRECT,
       BX_INSTR_IS_RET, BX_INSTR_IS_IRET, BX_INSTR_IS_INT, BX_INSTR_IS_SYSCALL,
       BX_INSTR_IS_SYSRET, BX_INSTR_IS_SYSENTER, BX_INSTR_IS_SYSEXIT };
class bxInstruction_c {};
struct BX_CPU_C {
    struct { struct { unsigned rpl; } selector; } sregs[6];
    bx_address prev_rip;
};
extern BX_CPU_C bx_cpus[BX_SMP_PROCESSORS];
#define BX_CPU(n) (&bx_cpus[n])
