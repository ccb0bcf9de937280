/* Code in a library opened late, code made at run time, code that changes under its own feet. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* mov ecx, edi; L: dec ecx; jnz L; mov eax, 7; ret */
static const unsigned char loop[] = {0x89, 0xf9, 0xff, 0xc9, 0x75, 0xfc, 0xb8, 7, 0, 0, 0, 0xc3};
/* mov byte [rip+1], 9; mov eax, 3; ret: the mov's operand is changed before it runs */
static const unsigned char changing[] = {0xc6, 0x05, 0x01, 0, 0, 0, 9, 0xb8, 3, 0, 0, 0, 0xc3};

int main(void) {
    void *math = dlopen("libm.so.6", RTLD_NOW);
    double (*cosine)(double) = (double (*)(double))dlsym(math, "cos");
    unsigned char *code = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                               -1, 0);
    memcpy(code, loop, sizeof loop);
    memcpy(code + 64, changing, sizeof changing);
    mprotect(code, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    int got = ((int (*)(int))code)(10);
    int changed = ((int (*)(void))(code + 64))();
    printf("%p %d %d %.3f\n", (void *)code, got, changed, cosine(0.5));
    return 0;
}
