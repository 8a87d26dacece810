// scale LOAD: nanoseconds for each operation of LOAD, while three threads or
// processes keep the other vCPUs busy.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUSY 3
#define LINES 24
#define WORK 20000000u

static volatile int stop;
// A page of RETs that the busy threads call, and one that is written.
static char *called, *written;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void flush(char *from, size_t bytes) {
    for (char *at = from; at < from + bytes; at += 64)
        __asm__ volatile("dc cvau, %0" ::"r"(at) : "memory");
    __asm__ volatile("dsb ish" ::: "memory");
    for (char *at = from; at < from + bytes; at += 64)
        __asm__ volatile("ic ivau, %0" ::"r"(at) : "memory");
    __asm__ volatile("dsb ish\n\tisb" ::: "memory");
}

static char *code_page(void) {
    char *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) fail("mmap");
    for (int i = 0; i < 1024; i++) ((uint32_t *)page)[i] = 0xd65f03c0;
    flush(page, 4096);
    return page;
}

static void *caller(void *unused) {
    (void)unused;
    while (!stop)
        for (int i = 0; i < 4096; i += 64) ((void (*)(void))(called + i))();
    return 0;
}

static void start_callers(void) {
    called = code_page();
    written = code_page();
    for (int i = 0; i < BUSY; i++) {
        pthread_t thread;
        if (pthread_create(&thread, 0, caller, 0)) fail("pthread_create");
    }
    usleep(50000);
}

static void code(int count, int lines) {
    for (int i = 0; i < count; i++) {
        *(volatile uint32_t *)written = 0xd65f03c0;
        flush(written, 64 * (size_t)lines);
        ((void (*)(void))written)();
    }
}

static void protect(int count) {
    char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) fail("mmap");
    for (int i = 0; i < count; i++) {
        page[0]++;
        if (mprotect(page, 4096, PROT_READ)) fail("mprotect");
        if (mprotect(page, 4096, PROT_READ | PROT_WRITE)) fail("mprotect");
    }
}

static void forks(int count) {
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child == 0) _exit(0);
        if (waitpid(child, 0, 0) != child) fail("waitpid");
    }
}

static void *work(void *result) {
    uint32_t x = 1;
    for (uint32_t i = 0; i < WORK; i++) x = x * 1664525u + 1013904223u;
    *(uint32_t *)result = x;
    return 0;
}

// Threads that each do the same work, on as many vCPUs.
static void compute(int threads) {
    pthread_t ids[4];
    uint32_t results[4];
    for (int i = 0; i < threads; i++)
        if (pthread_create(&ids[i], 0, work, &results[i])) fail("pthread_create");
    for (int i = 0; i < threads; i++) pthread_join(ids[i], 0);
}

int main(int count, char **words) {
    const char *load = count > 1 ? words[1] : "";
    pid_t busy[BUSY] = {0};
    int times = 1;
    uint64_t begun;
    if (!strcmp(load, "flush") || !strcmp(load, "method")) {
        times = 500;
        start_callers();
        begun = now();
        code(times, load[0] == 'f' ? 1 : LINES);
    } else if (!strcmp(load, "mprotect")) {
        times = 500;
        start_callers();
        begun = now();
        protect(times);
    } else if (!strcmp(load, "fork")) {
        times = 100;
        for (int i = 0; i < BUSY; i++) {
            busy[i] = fork();
            if (busy[i] == 0)
                for (;;) __asm__ volatile("");
        }
        usleep(50000);
        begun = now();
        forks(times);
    } else if (!strcmp(load, "one") || !strcmp(load, "two")) {
        begun = now();
        compute(load[0] == 'o' ? 1 : 2);
    } else {
        return 2;
    }
    uint64_t took = now() - begun;
    stop = 1;
    for (int i = 0; i < BUSY; i++)
        if (busy[i] > 0) kill(busy[i], SIGKILL);
    printf("%s %llu\n", load, (unsigned long long)(took / (uint64_t)times));
    return 0;
}
