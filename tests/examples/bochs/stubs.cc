/* As the other hooks are left: each does nothing, and gives way. */
#include "bochs.h"
__attribute__((weak)) void bx_instr_hlt(unsigned) {}
__attribute__((weak)) void bx_instr_wrmsr(unsigned, unsigned, Bit64u) {}
