/* What the flow of a program needs of its parts: see flow.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_NATIVE_FULL_FLOW_H
#define PYLBR_NATIVE_FULL_FLOW_H

#include "full.h"

extern u64 wanted;  /* where the program stands while signals are let through */
extern int is_over; /* it runs natively, for good */
extern u32 calling; /* way of the system call that is being made */
void forget_code(void);

#endif
