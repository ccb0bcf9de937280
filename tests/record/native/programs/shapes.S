/* Every shape of control transfer that a compiler, a linker or an assembler makes, with state that
 * must survive each of them: flags, the red zone, vector and x87 registers, RSP as data.
 *
 * void shapes(uint64_t *sum): all registers that a function keeps are kept; *sum is mixed with
 * what every shape computed.
 */
        .text
        .globl  shapes, gs_area
        .type   shapes, @function
        .macro  mix reg
        rol     $7, %rbx
        xor     \reg, %rbx
        .endm

shapes: push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        push    %rdi
        mov     (%rdi), %rbx

/* direct calls, with the prefixes that linkers put before them */
        mov     $1, %eax
        call    leaf
        .byte   0x67
        call    leaf
        .byte   0x66, 0x66, 0x48
        call    leaf
        .byte   0xf2
        call    leaf
        call    leaf_repz
        mix     %rax
        call    1f                      /* to the next instruction: no branch */
1:      pop     %rax
        mix     %rax

/* indirect calls: registers, memory by RIP, RSP, base with index, FS and GS */
        lea     leaf(%rip), %r11
        mov     $2, %eax
        call    *%r11
        mov     %r11, %rcx
        call    *%rcx
        call    *pointer(%rip)
        .byte   0x66, 0x48
        call    *pointer(%rip)
        push    %r11
        push    $0
        call    *8(%rsp)
        lea     8(%rsp), %rsp
        call    *(%rsp)
        pop     %r11
        lea     pointers(%rip), %r10
        mov     $3, %r9d
        call    *-8(%r10,%r9,8)
        call    *%gs:8
        mov     %gs:0, %rcx
        mix     %rcx
        mov     %fs:0, %rcx
        cmp     %fs:0, %rcx
        sete    %cl
        movzbl  %cl, %ecx
        mix     %rcx
        mix     %rax

/* indirect jumps: a table of addresses, a register with notrack, a pushed address */
        xor     %r12d, %r12d
2:      mov     %r12, %rcx
        and     $3, %ecx
        jmp     *table(,%rcx,8)
case0:  add     $5, %rax
        jmp     3f
case1:  rol     $3, %rax
        jmp     3f
case2:  xor     %r12, %rax
        jmp     3f
case3:  not     %rax
3:      inc     %r12d
        cmp     $11, %r12d
        jne     2b
        lea     4f(%rip), %rdx
        .byte   0x3e
        jmp     *%rdx
        ud2
4:      lea     5f(%rip), %rdx
        push    %rdx
        ret
        ud2
5:      mix     %rax

/* LOOP, LOOPE, LOOPNE, JRCXZ, JECXZ */
        mov     $6, %ecx
6:      add     %rcx, %rax
        loop    6b
        mov     $9, %ecx
        mov     $0x0000000100000000, %r8
        or      %r8, %rcx
7:      jecxz   8f                      /* tests ECX alone */
        cmp     %ecx, %ecx
        .byte   0x67
        loope   7b
8:      mov     $7, %ecx
9:      cmp     $4, %rcx
        loopne  9b
        mix     %rcx
        jrcxz   10f
        xor     %ecx, %ecx
        jrcxz   11f
10:     ud2
11:     mix     %rax

/* returns that pop arguments, through a chain */
        push    $17
        push    $18
        call    pops
        mix     %rax

/* flags survive calls, jumps and returns that do not change them */
        stc
        call    carries
        sbb     %rcx, %rcx
        mix     %rcx
        mov     $0x7fffffff, %ecx
        add     $1, %ecx
        jmp     12f
        ud2
12:     jno     10b
        jns     10b
        std
        call    leaf_only_ret
        pushf
        pop     %rcx
        cld
        and     $0x400, %ecx
        mix     %rcx

/* the red zone survives branches */
        mov     %rbx, -8(%rsp)
        mov     %rax, -128(%rsp)
        jmp     13f
        ud2
13:     mov     $4, %ecx
14:     dec     %ecx
        jnz     14b
        mov     -128(%rsp), %rcx
        mix     %rcx
        mov     -8(%rsp), %rcx
        mix     %rcx

/* vector and x87 registers, MXCSR and the control word */
        movq    %rbx, %xmm0
        movq    %rax, %xmm15
        pshufd  $0x4e, %xmm0, %xmm7
        fldpi
        fld1
        call    leaf_repz
        fyl2x
        mov     $3, %ecx
15:     paddq   %xmm15, %xmm7
        pxor    %xmm0, %xmm15
        loop    15b
        sub     $16, %rsp
        fstpl   (%rsp)
        fnstcw  8(%rsp)
        stmxcsr 12(%rsp)
        pop     %rcx
        pop     %rdx
        mix     %rcx
        mov     $0x0000ffff0000ffff, %r8
        and     %r8, %rdx
        mix     %rdx
        movq    %xmm7, %rcx
        mix     %rcx
        movq    %xmm15, %rcx
        mix     %rcx

/* RSP is data, and then the end of a tiny stack */
        mov     %rsp, %r13
        mov     $0x123, %esp
        jmp     16f
        ud2
16:     lea     0x1000(%rsp,%rbx), %rcx
        mov     $5, %edx
17:     add     %rsp, %rcx
        dec     %edx
        jnz     17b
        lea     tiny_end(%rip), %rsp
        call    leaf_repz
        mov     %r13, %rsp
        mix     %rcx

/* strings: forwards, none at all, and one that stops early */
        lea     words(%rip), %rsi
        lea     copied(%rip), %rdi
        mov     $40, %ecx
        rep movsb
        xor     %ecx, %ecx
        rep stosq
        lea     words(%rip), %rdi
        mov     $40, %ecx
        mov     $0x6f, %al
        repne scasb
        mix     %rcx
        mov     copied+24(%rip), %rcx
        mix     %rcx

/* frames, recursion, conditional jumps of both lengths, locked and conditional data */
        enter   $32, $0
        mov     %rbx, -16(%rbp)
        mov     $9, %edi
        call    fib
        mov     -16(%rbp), %rcx
        mix     %rcx
        leave
        mix     %rax
        mov     $13, %r12d
18:     mov     %r12, %rcx
        imul    $0x1e3779b1, %rcx, %rcx
        bt      $13, %rcx
        jc      19f
        .byte   0x2e
        jnp     20f
        lock xadd %rcx, counter(%rip)
19:     cmovs   %r12, %rcx
        {disp32} jmp 20f
        ud2
20:     mix     %rcx
        dec     %r12d
        {disp32} jnz 18b
        movq    $0, counter(%rip)

/* an instruction across the end of a page */
        call    crossing
        mix     %rax

        pop     %rdi
        mov     %rbx, (%rdi)
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret

leaf:   lea     3(%rax,%rax,4), %rax
        ret
leaf_repz:
        repz ret
leaf_only_ret:
carries:
        jmp     1f
        ud2
1:      ret
pops:   mov     8(%rsp), %rcx
        add     16(%rsp), %rcx
        add     %rcx, %rax
        ret     $16
fib:    cmp     $2, %edi
        jb      1f
        push    %rdi
        dec     %edi
        call    fib
        pop     %rdi
        push    %rax
        sub     $2, %edi
        call    fib
        pop     %rcx
        add     %rcx, %rax
        ret
1:      mov     %edi, %eax
        ret

        .p2align 12
        .skip   4096 - 5
crossing:
        mov     $0x1122334455667788, %rax
        jmp     1f
        ud2
1:      ret

        .data
        .p2align 4
pointer:        .quad leaf
pointers:       .quad 0, 0, leaf
table:          .quad case0, case1, case2, case3
gs_area:        .quad 0x5ca1ab1e, leaf
counter:        .quad 0
words:          .ascii "the quick brown fox jumps over a lazy dog"
copied:         .skip 48
                .skip 16
tiny_end:
        .section .note.GNU-stack, "", @progbits
