/* Code that is written, run, rewritten and run again, also by two threads and
   through two mappings of the same page. Only for the guest's architecture. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int (*function)(int);
static uint32_t mov(int value) { return 0x52800000u | (uint32_t)(value & 0xffff) << 5; }      /* movz w0, #value */
static uint32_t add(int value) { return 0x11000000u | (uint32_t)(value & 0xfff) << 10; }     /* add w0, w0, #value */
#define RET 0xd65f03c0u

static void flush(void *start, void *end) { __builtin___clear_cache(start, end); }

static long rewrite(uint32_t *code, int rounds) {
    long wrong = 0;
    for (int i = 0; i < rounds; i++) {
        code[0] = i & 1 ? mov(i) : add(i & 0xfff); code[1] = RET;
        flush(code, code + 2);
        int expected = i & 1 ? i & 0xffff : 1000 + (i & 0xfff);
        wrong += ((function)(void *)code)(1000) != expected;
    }
    return wrong;
}
/* A loop whose body changes while its block stays hot. */
static long hot(uint32_t *code) {
    long total = 0;
    for (int i = 0; i < 200; i++) {
        code[0] = add(i); code[1] = RET; flush(code, code + 2);
        for (int j = 0; j < 300; j++) total += ((function)(void *)code)(j);
    }
    return total;
}
/* Code that stores over the instruction right behind itself: str w1,[x2]; then
   cache maintenance as the architecture asks; then the patched word. */
static int patch_ahead(uint32_t *code, int value) {
    const uint32_t body[] = {
        0xb9000041u, /* str w1, [x2] */
        0xd50b7b22u, /* dc cvau, x2 */
        0xd5033b9fu, /* dsb ish */
        0xd50b7522u, /* ic ivau, x2 */
        0xd5033b9fu, /* dsb ish */
        0xd5033fdfu, /* isb */
        mov(1), RET,
    };
    for (int i = 0; i < 8; i++) code[i] = body[i];
    flush(code, code + 8);
    return ((int (*)(int, uint32_t, uint32_t *))(void *)code)(0, mov(value), code + 6);
}
static void *thread(void *arg) { return (void *)rewrite(arg, 4000); }

/* One thread calls while another rewrites: each call returns an old or the new
   value, and after the hand-over the new one. */
static uint32_t *shared_code; static atomic_int published, taken; static atomic_long stale;
static void *caller(void *arg) {
    (void)arg;
    for (int i = 1; i <= 2000; i++) {
        while (atomic_load_explicit(&published, memory_order_acquire) < i) sched_yield();
        __asm__ volatile("isb" ::: "memory");
        stale += ((function)(void *)shared_code)(0) != i;
        atomic_store_explicit(&taken, i, memory_order_release);
    }
    return NULL;
}
int main(void) {
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    uint32_t *page[3];
    for (int i = 0; i < 3; i++) page[i] = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("rewrite %ld\n", rewrite(page[0], 20000));
    printf("hot %ld\n", hot(page[0] + 8));
    long wrong = 0; for (int i = 2; i < 3000; i++) wrong += patch_ahead(page[0] + 64, i) != i;
    printf("ahead %ld\n", wrong);
    /* Instructions that straddle a page's end. */
    wrong = 0;
    uint32_t *two = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *edge = two + size / 4 - 1;
    for (int i = 0; i < 3000; i++) { edge[0] = mov(i); edge[1] = add(i & 0xff); edge[2] = RET; flush(edge, edge + 3); wrong += ((function)(void *)edge)(0) != i + (i & 0xff); }
    printf("edge %ld\n", wrong);
    pthread_t threads[2]; void *results[2];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, thread, page[1 + i]);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], &results[i]);
    printf("threads %ld %ld\n", (long)results[0], (long)results[1]);
    /* Two mappings of one page: written here, executed there. */
    int fd = memfd_create("code", 0); if (ftruncate(fd, (off_t)size)) return 9;
    uint32_t *writable = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *executable = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    wrong = 0;
    for (int i = 0; i < 4000; i++) { writable[0] = mov(i); writable[1] = RET; flush(writable, writable + 2); flush(executable, executable + 2); wrong += ((function)(void *)executable)(0) != i; }
    printf("alias %ld\n", wrong);
    /* W^X as JITs do it: written, protected, run, unprotected. */
    wrong = 0;
    for (int i = 0; i < 2000; i++) { mprotect(page[0], size, PROT_READ | PROT_WRITE); page[0][0] = mov(i); page[0][1] = RET; mprotect(page[0], size, PROT_READ | PROT_EXEC); flush(page[0], page[0] + 2); wrong += ((function)(void *)page[0])(0) != i; }
    printf("protect %ld\n", wrong);
    /* Pages mapped anew at the same address. */
    wrong = 0;
    for (int i = 0; i < 1000; i++) { uint32_t *p = mmap(page[1], size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); p[0] = mov(i); p[1] = RET; flush(p, p + 2); wrong += ((function)(void *)p)(0) != i; }
    printf("remap %ld\n", wrong);
    shared_code = page[2]; pthread_t other; pthread_create(&other, NULL, caller, NULL);
    for (int i = 1; i <= 2000; i++) {
        shared_code[0] = mov(i); shared_code[1] = RET; flush(shared_code, shared_code + 2);
        atomic_store_explicit(&published, i, memory_order_release);
        while (atomic_load_explicit(&taken, memory_order_acquire) < i) sched_yield();
    }
    pthread_join(other, NULL);
    printf("handed over, stale %ld\n", (long)stale);
    return 0;
}
