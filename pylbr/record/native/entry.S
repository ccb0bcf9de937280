/* Where the program's registers and the blob's meet.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "numbers.h"

    .text

/* From a block's exit, through the thunk of a face: RSP is the lane's stack, FACE and LEAVE
 * are pushed.  All other registers and the flags are the program's. */
    .globl dispatch_entry
    .hidden dispatch_entry
dispatch_entry:
    pushfq
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    call dispatch
    mov %rsp, %rdi
    /* fall through */

/* resume(registers): into copied code. */
    .globl resume
    .hidden resume
resume:
    mov %rdi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    popfq
    jmp *(%rsp)

/* load_vectors(fpstate, xfeatures) */
    .globl load_vectors
    .hidden load_vectors
load_vectors:
    mov %esi, %eax
    mov %rsi, %rdx
    shr $32, %rdx
    xrstor64 (%rdi)
    ret

/* resume_signal(frame, fpstate, xfeatures, busy, pkru, pkeys): the vector registers are still the
 * program's; save them, free the lane, let the kernel restore everything at once. */
    .globl resume_signal
    .hidden resume_signal
resume_signal:
    mov %rdi, %r10
    mov %rsi, %rdi
    mov %rdx, %rsi
    mov %rcx, %r11
    test %r9d, %r9d
    jz 1f
    mov %r8d, %eax
    xor %ecx, %ecx
    xor %edx, %edx
    wrpkru
1:  mov %esi, %eax
    mov %rsi, %rdx
    shr $32, %rdx
    xsave64 (%rdi)
    mov %r10, %rsp
    movl $0, (%r11)
    mov $15, %eax
    syscall
    ud2

/* Handlers, one for each slot: what a slot is for is in state.slots. */
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

/* received(info, uc, slot) returns where to continue, 0 for rt_sigreturn. */
handler:
    push %rdi
    push %rsi
    push %rdx
    mov %rsi, %rdi
    mov %rdx, %rsi
    mov %eax, %edx
    call received
    pop %rdx
    pop %rsi
    pop %rdi
    test %rax, %rax
    jz 1f
    mov %rax, %rcx
    xor %eax, %eax
    jmp *%rcx
1:  ret

/* In place of the program's rt_sigaction; RCX is where it continues.  As the system call itself,
 * this changes RAX, RCX and R11 only. */
    .globl sigaction_entry
    .hidden sigaction_entry
sigaction_entry:
    lea -128(%rsp), %rsp
    pushfq
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %rbp
    mov %rsp, %rbp
    and $-16, %rsp
    cld
    mov %r10, %rcx
    call sigaction
    mov %rbp, %rsp
    pop %rbp
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    popfq
    lea 128(%rsp), %rsp
    jmp *%rcx

/* rt_sigaction(number, act, old, size) */
    .globl kernel_sigaction
    .hidden kernel_sigaction
kernel_sigaction:
    mov %rcx, %r10
    mov $13, %eax
    syscall
    ret

/* rt_tgsigqueueinfo is not allowed for a signal of one's own; tkill(tid, number) is. */
    .globl raise_again
    .hidden raise_again
raise_again:
    mov %edi, %esi
    mov $186, %eax
    syscall
    mov %eax, %edi
    mov $200, %eax
    syscall
    ret

    .globl restorer
    .hidden restorer
restorer:
    mov $15, %eax
    syscall
    ud2

    .section .note.GNU-stack, "", @progbits
