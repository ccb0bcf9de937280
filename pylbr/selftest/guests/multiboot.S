/* Multiboot entry: from 32-bit protected mode to long mode, then as start.S. */
    .section .multiboot, "ax"
    .balign 4
    .long 0x1BADB002, 0, -0x1BADB002

    .code32
    .globl start32
start32:
    cmp $0x2BADB002, %eax
    jne refused
    testl $1, (%ebx)            /* the information has the size of memory */
    jz refused
    mov $stack_top, %esp        /* 32 bits of it: nothing has loaded SS since the boot loader */
    call long_mode              /* pushed before paging is on, popped after */
    lgdt pointer
    ljmp $8, $_start

long_mode:
    mov $root, %edi             /* 4 GiB in pages of 2 MiB */
    movl $pointers + 3, (%edi)
    mov $pointers, %edi
    mov $directories + 3, %eax
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $8, %edi
    add $0x1000, %eax
    loop 1b
    mov $directories, %edi
    mov $0x83, %eax
    mov $2048, %ecx
2:  mov %eax, (%edi)
    add $8, %edi
    add $0x200000, %eax
    loop 2b
    mov $root, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x620, %eax             /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $0xC0000080, %ecx
    rdmsr
    or $0x100, %eax             /* EFER.LME */
    wrmsr
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    ret
refused:
    mov $77, %al
    out %al, $0xF4
    hlt

    .balign 8
boot_gdt:
    .quad 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
pointer:
    .word . - boot_gdt - 1
    .long boot_gdt

    .bss
    .balign 4096
root: .skip 4096
pointers: .skip 4096
directories: .skip 16384
    .section .note.GNU-stack, "", @progbits
