/* Entry, interrupt stubs, ring 3 and back. */
    .text
    .globl _start
_start:
    lea stack_top(%rip), %rsp
    call kernel
1:  cli
    hlt
    jmp 1b

/* 256 stubs of 16 bytes: an error code of 0 where the processor pushes none. */
    .globl stubs
    .balign 16
stubs:
    vector = 0
    .rept 256
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
    pushq $0
    .endif
    pushq $vector
    jmp common
    vector = vector + 1
    .endr

common:
    push %rax; push %rbx; push %rcx; push %rdx; push %rsi; push %rdi; push %rbp
    push %r8; push %r9; push %r10; push %r11; push %r12; push %r13; push %r14; push %r15
    mov %rsp, %rdi
    cld
    call interrupt
    pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8
    pop %rbp; pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rbx; pop %rax
    add $16, %rsp
    iretq

/* void enter_user(uint64_t rip, uint64_t rsp): IRETQ; leave_user comes back. */
    .globl enter_user, leave_user, user_iretq
enter_user:
    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
    mov %rsp, kernel_rsp(%rip)
    pushq $0x1b
    push %rsi
    pushq $0x2
    pushq $0x23
    push %rdi
user_iretq:
    iretq
leave_user:
    mov kernel_rsp(%rip), %rsp
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
    ret

    .bss
kernel_rsp: .quad 0
    .balign 16
    .skip 0x8000
    .globl stack_top
stack_top:
    .section .note.GNU-stack, "", @progbits
