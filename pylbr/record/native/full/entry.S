/* Where the program's registers and the blob's meet.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "numbers.h"

    .macro global name
    .globl \name
    .hidden \name
\name:
    .endm

    .macro load_registers
    mov cpu+0(%rip), %r15
    mov cpu+8(%rip), %r14
    mov cpu+16(%rip), %r13
    mov cpu+24(%rip), %r12
    mov cpu+32(%rip), %r11
    mov cpu+40(%rip), %r10
    mov cpu+48(%rip), %r9
    mov cpu+56(%rip), %r8
    mov cpu+64(%rip), %rdi
    mov cpu+72(%rip), %rsi
    mov cpu+80(%rip), %rbp
    mov cpu+88(%rip), %rbx
    mov cpu+96(%rip), %rdx
    mov cpu+104(%rip), %rcx
    mov cpu+112(%rip), %rax
    .endm

    .macro save_registers
    mov %r15, cpu+0(%rip)
    mov %r14, cpu+8(%rip)
    mov %r13, cpu+16(%rip)
    mov %r12, cpu+24(%rip)
    mov %r11, cpu+32(%rip)
    mov %r10, cpu+40(%rip)
    mov %r9, cpu+48(%rip)
    mov %r8, cpu+56(%rip)
    mov %rdi, cpu+64(%rip)
    mov %rsi, cpu+72(%rip)
    mov %rbp, cpu+80(%rip)
    mov %rbx, cpu+88(%rip)
    mov %rdx, cpu+96(%rip)
    mov %rcx, cpu+104(%rip)
    mov %rax, cpu+112(%rip)
    mov %rsp, program_rsp(%rip)
    .endm

    .macro load_flags /* on the blob's own stack */
    lea stack_top(%rip), %rsp
    push cpu+120(%rip)
    popfq
    .endm

    .macro set_mask to, old
    lea \to(%rip), %rsi
    mov $2, %edi
    \old
    mov $8, %r10d
    mov $14, %eax
    syscall
    .endm

    .bss
    .balign 64
    .skip 65536
stack_top:
    .skip 65536 /* a signal that is not blocked may find the blob on its stack */
handler_stack_top:
    .globl cpu, program_rsp, go, child_pc
    .hidden cpu, program_rsp, go, child_pc
cpu: .skip 128
program_rsp: .skip 8
go: .skip 8
child_pc: .skip 8
    .data
    .globl full_mask
    .hidden full_mask
full_mask: .quad 0 /* what the program has blocked */
closed: .quad ~(1<<3 | 1<<4 | 1<<6 | 1<<7 | 1<<10 | 1<<30)

    .text

/* From copied code: all registers and flags are the program's. */
global dispatch_entry
    save_registers
    lea stack_top(%rip), %rsp
    pushfq
    pop cpu+120(%rip)
    cld
    call dispatch
    ud2

global begin
    save_registers
    lea stack_top(%rip), %rsp
    pushfq
    pop cpu+120(%rip)
    cld
    call started
    ud2

/* To `go`, copied code or the program's own. */
global resume
    load_flags
    load_registers
    mov program_rsp(%rip), %rsp
    jmp *go(%rip)

/* To `go`, the program's own code, for good; signals are let through. */
global resume_open
    load_flags
    mov program_rsp(%rip), %rsp
    set_mask full_mask, "mov $0, %edx"
    load_registers
    jmp *go(%rip)

/* Signals are let through for a moment.  From here on flags are the program's: moves only. */
global safe_point
    load_flags
    mov program_rsp(%rip), %rsp
    set_mask full_mask, "mov $0, %edx"
global safe_point_open
    set_mask closed, "lea full_mask(%rip), %rdx"
global safe_point_closed
    lea stack_top(%rip), %rsp
    cld
    call safe_done
    ud2

/* The program's system call, with signals as it has them. */
global safe_call
    load_flags
    mov program_rsp(%rip), %rsp
    set_mask full_mask, "mov $0, %edx"
global safe_call_open
    load_registers
global call_made
    syscall
global call_done
    save_registers
global call_saved
    set_mask closed, "lea full_mask(%rip), %rdx"
global call_closed
    lea stack_top(%rip), %rsp
    cld
    call call_over
    ud2

/* The same where the program has no handlers. */
global plain_call
    load_flags
    load_registers
    mov program_rsp(%rip), %rsp
    syscall
    save_registers
    lea stack_top(%rip), %rsp
    cld
    call call_over
    ud2

/* The child runs natively; flags are not changed. */
global fork_call
    load_flags
    mov program_rsp(%rip), %rsp
    set_mask full_mask, "mov $0, %edx"
global fork_open
    load_registers
global fork_made
    syscall
global fork_done
    mov %rax, %rcx
    jrcxz 1f
    jmp 2f
1:  mov child_pc(%rip), %rcx
    jmp *child_pc(%rip)
2:  save_registers
global fork_saved
    set_mask closed, "lea full_mask(%rip), %rdx"
global fork_closed
    lea stack_top(%rip), %rsp
    cld
    call fork_over
    ud2

/* call_return(frame): rt_sigreturn with a copy of the program's, which leads to `reentry`. */
global call_return
    mov %rdi, %rsp
    mov $15, %eax
    syscall
    ud2
global reentry
    jmp *go(%rip)

/* Handlers, one for each slot. */
    .globl handlers
    .hidden handlers
    .balign 16
handlers:
    .set number, 0
    .rept NATIVE_SLOTS
    .balign HANDLER_SIZE
    mov $number, %eax
    jmp handler
    .set number, number + 1
    .endr

/* received(info, uc, slot, number) returns where to continue natively, 0 for rt_sigreturn; or it
 * does not return. */
handler:
    push %rdi
    push %rsi
    push %rdx
    push %rbp
    mov %rsp, %rbp
    lea handler_stack_top(%rip), %rcx
    sub %rsp, %rcx
    cmp $65536, %rcx
    jb 2f /* one that came amid another stays where it is */
    lea handler_stack_top(%rip), %rsp
2:  and $-16, %rsp
    mov %rdi, %rcx
    mov %rsi, %rdi
    mov %rdx, %rsi
    mov %eax, %edx
    call received
    mov %rbp, %rsp
    pop %rbp
    pop %rdx
    pop %rsi
    pop %rdi
    test %rax, %rax
    jz 1f
    mov %rax, %rcx
    xor %eax, %eax
    jmp *%rcx
1:  ret

global restorer
    mov $15, %eax
    syscall
    ud2

    .section .note.GNU-stack, "", @progbits
