/* Samples of the guest in a perf.data file. */
#pragma once
#include "lbrcore_cpu.h"

/* `system`: a machine is emulated, not a program.  LBR_OK, or why there is no file. */
int samples_open(const char *path, uint64_t period, int system);
/* Once code runs: name the program and where its code lies. */
void samples_map_program(void);
/* The guest's PMI handler. */
void samples_take(unsigned vcpu, lbr_cpu *cpu, uint64_t ip);
/* Make the counter of taken branches overflow after `period` more of them. */
void samples_count(lbr_cpu *cpu);
void samples_close(void);
