// -fnon-call-exceptions: a handler of SIGFPE throws out of the instruction that divides.
#include <csignal>
#include <cstdio>

static volatile int zero = 0;

static void handler(int number) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    sigprocmask(SIG_UNBLOCK, &set, 0);
    throw 1;
}

__attribute__((noinline)) int divide(int a) {
    int r = 0;
    for (int i = 0; i < 30; i++) {
        r += a;
        asm volatile("");
    }
    return r / zero;
}

int main() {
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = SA_NODEFER;
    sigaction(SIGFPE, &action, 0);
    int caught = 0;
    volatile int result = 0;
    for (int i = 0; i < 30000; i++)
        try {
            result = divide(i);
        } catch (int) {
            caught++;
        }
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, 0, &blocked);
    int held = 0;
    for (int i = 1; i < 32; i++)
        held += sigismember(&blocked, i);
    std::printf("%d %d\n", caught, held);
}
