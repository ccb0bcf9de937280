/* Executes another program at the same addresses, in the same process, after a loop of its own;
 * or forks a child that works. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef SECOND
__attribute__((noinline)) void padding(void) { __asm__ volatile("nop;nop;nop;nop;nop;nop;nop;nop"); }
#endif

__attribute__((noinline)) void WORK(long rounds) {
    for (volatile long i = 0; i < rounds; i++)
        if (i & 1)
            i += 0;
}

int main(int argc, char **argv) {
    WORK(argc > 1 && !strcmp(argv[1], "fork") ? 1000 : ROUNDS);
#ifdef SECOND
    padding();
#endif
    if (argc > 2 && !strcmp(argv[1], "exec"))
        execv(argv[2], argv + 2);
    if (argc > 1 && !strcmp(argv[1], "fork")) {
        if (fork() == 0) {
            WORK(ROUNDS);
            _exit(0);
        }
        wait(NULL);
    }
    return 0;
}
