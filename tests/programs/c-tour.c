#define _GNU_SOURCE
#include <errno.h>
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#pragma STDC FENV_ACCESS ON

static uint64_t state = 88172645463325252ull;
static uint64_t next(void) {
    state ^= state << 13; state ^= state >> 7; state ^= state << 17;
    return state;
}

static void integers(void) {
    uint64_t h = 0;
    for (int i = 0; i < 300000; i++) {
        uint64_t a = next(), b = next() | 1;
        h = h * 31 + a / b; h = h * 31 + a % b;
        h = h * 31 + (uint64_t)((int64_t)a / (int64_t)(b >> 40 | 1));
        h ^= (uint64_t)(((unsigned __int128)a * b) >> 64);
        h += (uint64_t)__builtin_popcountll(a) + (uint64_t)__builtin_clzll(b) + (uint64_t)__builtin_ctzll(a | 1 << 20);
        h = (h << (a & 63)) | (h >> ((64 - (a & 63)) & 63));
        h ^= __builtin_bswap64(a); h += (uint64_t)(int8_t)a + (uint16_t)b;
    }
    printf("integers %016llx\n", (unsigned long long)h);
}

static void floats(void) {
    double sum = 0; float small = 0; uint64_t h = 0;
    for (int i = 1; i < 200000; i++) {
        sum += 1.0 / i; small += 1.0f / (float)i;
        double x = (double)(int64_t)next() / 3.0; float y = (float)x;
        double q = sqrt(fabs(x)) - floor(x / 7.0) + rint(x) + trunc((double)y);
        uint64_t bits; memcpy(&bits, &q, 8); h = h * 31 + bits;
        h = h * 31 + (uint64_t)(int64_t)(x / 1e6) + (uint32_t)(y > 1.0f);
        h += (uint64_t)(int64_t)fma(x, 0.5, 1.0);
    }
    printf("floats %.17g %.9g %016llx\n", sum, (double)small, (unsigned long long)h);
    printf("limits %a %a %a %d %d\n", DBL_MIN / 2, DBL_MAX, (double)FLT_MIN / 4, isnan(NAN), signbit(-0.0) != 0);
}

static void rounding(void) {
    static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    volatile double one = 1, three = 3, big = DBL_MAX, tiny = DBL_MIN, zero = 0;
    for (int i = 0; i < 4; i++) {
        fesetround(modes[i]);
        volatile double q = one / three, n = -one / three, r = rint(2.5), f = (double)(float)0.1;
        volatile float narrow = (float)q;
        printf("mode %d %a %a %g %a %a %ld\n", i, q, n, r, f, (double)narrow, lrint(-1.5));
    }
    fesetround(FE_TONEAREST);
    struct { const char *name; int flag; } raised[] = {{"divide", FE_DIVBYZERO}, {"invalid", FE_INVALID}, {"overflow", FE_OVERFLOW}, {"underflow", FE_UNDERFLOW}, {"inexact", FE_INEXACT}};
    for (int i = 0; i < 5; i++) {
        feclearexcept(FE_ALL_EXCEPT);
        volatile double r = 0;
        switch (i) {
        case 0: r = one / zero; break;
        case 1: r = zero / zero; break;
        case 2: r = big * big; break;
        case 3: r = tiny * tiny; break;
        case 4: r = one / three; break;
        }
        (void)r;
        printf("%s", raised[i].name);
        for (int j = 0; j < 5; j++) printf(" %d", fetestexcept(raised[j].flag) != 0);
        printf("\n");
    }
}

static jmp_buf back;
static void jump(int depth) { if (depth == 0) longjmp(back, 7); jump(depth - 1); }
static void jumps(void) {
    volatile int count = 0;
    for (int i = 0; i < 1000; i++) if (setjmp(back) == 7) count++; else jump(i % 50);
    printf("jumps %d\n", count);
}

static char *page; static volatile int faults; static long page_size;
static void on_fault(int number, siginfo_t *info, void *context) {
    (void)number; (void)context;
    char here;
    char *address = (char *)info->si_addr;
    if (address < page || address >= page + 64 * page_size) _exit(99);
    if (info->si_code != SEGV_ACCERR) _exit(98);
    (void)here;
    mprotect((void *)((uintptr_t)address & ~(uintptr_t)(page_size - 1)), (size_t)page_size, PROT_READ | PROT_WRITE);
    faults++;
}
static int overflow(int n) { volatile char pad[4096]; pad[0] = (char)n; return overflow(n + 1) + pad[0]; }
static sigjmp_buf escape;
static void on_overflow(int number) { (void)number; siglongjmp(escape, 1); }
static void signals(void) {
    page_size = sysconf(_SC_PAGESIZE);
    page = mmap(NULL, (size_t)(64 * page_size), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    unsigned sum = 0;
    for (int i = 0; i < 64; i++) page[i * page_size + i] = (char)i;
    for (int i = 0; i < 64; i++) sum += (unsigned)page[i * page_size + i];
    printf("faults %d sum %u\n", faults, sum);
    struct sigaction escape_action = {.sa_handler = on_overflow, .sa_flags = SA_ONSTACK};
    sigaction(SIGSEGV, &escape_action, NULL);
    if (sigsetjmp(escape, 1) == 0) overflow(0); else printf("stack overflow caught\n");
    signal(SIGSEGV, SIG_DFL);
    struct { int number; const char *name; } ends[] = {{SIGILL, "ill"}, {SIGSEGV, "segv"}, {SIGTRAP, "trap"}, {SIGBUS, "bus"}, {SIGABRT, "abort"}};
    for (int i = 0; i < 5; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            if (i == 0) __asm__ volatile(
#ifdef __aarch64__
                ".inst 0"
#else
                "ud2"
#endif
            );
            if (i == 1) *(volatile int *)8 = 1;
            if (i == 2) __asm__ volatile(
#ifdef __aarch64__
                "brk #0"
#else
                "int3"
#endif
            );
            if (i == 3) {
                char name[] = "/tmp/busXXXXXX"; int fd = mkstemp(name); unlink(name);
                char *m = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0); (void)*(volatile char *)m;
            }
            if (i == 4) abort();
            _exit(0);
        }
        int status; waitpid(child, &status, 0);
        printf("%s %d\n", ends[i].name, WIFSIGNALED(status) && WTERMSIG(status) == ends[i].number);
    }
}

static void processes(void) {
    int in[2], out[2]; char buffer[64] = {0};
    if (pipe(in) || pipe(out)) exit(1);
    fflush(stdout);
    if (fork() == 0) { dup2(in[0], 0); dup2(out[1], 1); close(in[1]); close(out[0]); execlp("tr", "tr", "a-z", "A-Z", (char *)0); _exit(127); }
    close(in[0]); close(out[1]);
    if (write(in[1], "through a pipe", 14) != 14) exit(1);
    close(in[1]);
    ssize_t got = read(out[0], buffer, sizeof buffer - 1); int status; wait(&status);
    printf("pipe %zd %s %d\n", got, buffer, WEXITSTATUS(status));
    int sum = 0;
    for (int i = 0; i < 200; i++) { fflush(stdout); pid_t child = fork(); if (child == 0) _exit(i & 63); waitpid(child, &status, 0); sum += WEXITSTATUS(status); }
    printf("forks %d\n", sum);
    int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), private = 5;
    fflush(stdout);
    if (fork() == 0) { *shared = 11; private = 6; _exit(0); }
    wait(&status); printf("shared %d private %d\n", *shared, private);
}

static uint64_t recurse(int n) { volatile uint64_t keep[4] = {(uint64_t)n, 1, 2, 3}; if (n == 0) return 0; uint64_t r = recurse(n - 1); return r + keep[0]; }
static int compare(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }
static long variadic(int n, ...) { va_list l; va_start(l, n); long s = 0; for (int i = 0; i < n; i++) s += i & 1 ? (long)va_arg(l, double) : va_arg(l, int); va_end(l); return s; }
struct big { double d[5]; int i; };
static struct big twice(struct big b) { for (int i = 0; i < 5; i++) b.d[i] *= 2; b.i++; return b; }

int main(void) {
    integers(); floats(); rounding(); jumps(); signals(); processes();
    printf("recursion %llu\n", (unsigned long long)recurse(50000));
    static double values[100000];
    for (int i = 0; i < 100000; i++) values[i] = (double)(next() >> 11) / 9007199254740992.0;
    qsort(values, 100000, sizeof *values, compare);
    printf("sorted %.17g %.17g %.17g\n", values[0], values[50000], values[99999]);
    struct big b = twice(twice((struct big){{1, 2, 3, 4, 5}, 6}));
    printf("struct %g %d variadic %ld\n", b.d[4], b.i, variadic(8, 1, 2.9, 3, 4.1, 5, 6.0, 7, 8.5));
    char text[200]; snprintf(text, sizeof text, "%s|%5.2f|%-6d|%06x|%c|%lld|%e", "str", 3.14159, 42, 0xbeef, 'Z', -1ll << 62, 6.02214076e23);
    printf("%s %ld %g %s\n", text, strtol("-0x7f", NULL, 16), strtod("1.5e-310", NULL), strstr("needle in haystack", "hay"));
    return 3;
}
