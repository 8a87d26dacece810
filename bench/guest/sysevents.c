/*
 * System events, each as nanoseconds per operation: what short-lived commands
 * spend their time on. Prints one "name ns" line per event.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

static const char *busybox;

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void require(int holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(1);
    }
}

static void spawn(int with_exec)
{
    int status;
    pid_t child = fork();
    require(child >= 0, "fork");
    if (child == 0) {
        if (with_exec)
            execl(busybox, "busybox", "true", (char *)NULL);
        _exit(with_exec ? 127 : 0);
    }
    require(waitpid(child, &status, 0) == child && status == 0, "child");
}

static void forkexec(int count)
{
    while (count--)
        spawn(1);
}

static void fork_wait(int count)
{
    while (count--)
        spawn(0);
}

static void syscalls(int count)
{
    while (count--)
        syscall(SYS_getppid);
}

/* One operation is the first touch of one page. */
static void faults(int count)
{
    size_t bytes = (size_t)count * PAGE;
    char *area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(area != MAP_FAILED, "mmap");
    madvise(area, bytes, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < bytes; at += PAGE)
        *(volatile char *)(area + at) = 1;
    munmap(area, bytes);
}

/* One operation is map, touch and unmap of 16 pages. */
static void mmaps(int count)
{
    while (count--) {
        char *area = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        require(area != MAP_FAILED, "mmap");
        for (int page = 0; page < 16; page++)
            *(volatile char *)(area + page * PAGE) = 1;
        munmap(area, 16 * PAGE);
    }
}

/* One operation is a byte to another process and back. */
static void pipes(int count)
{
    int there[2], back[2], status;
    char byte = 1;
    require(pipe(there) == 0 && pipe(back) == 0, "pipe");
    pid_t child = fork();
    require(child >= 0, "fork");
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1)
                _exit(1);
        _exit(0);
    }
    while (count--) {
        require(write(there[1], &byte, 1) == 1, "write");
        require(read(back[0], &byte, 1) == 1, "read");
    }
    close(there[1]);
    require(waitpid(child, &status, 0) == child && status == 0, "echo child");
    close(there[0]);
    close(back[0]);
    close(back[1]);
}

struct event {
    const char *name;
    void (*run)(int count);
    int count;
};

static const struct event events[] = {
    { "forkexec", forkexec, 300 },
    { "syscall", syscalls, 50000 },
    { "fault", faults, 8192 },
    { "mmap", mmaps, 1000 },
    { "pipe", pipes, 1000 },
    { "fork", fork_wait, 200 },
};

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    busybox = argv[1];
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        const struct event *event = &events[i];
        if (argc > 2 && strcmp(argv[2], event->name) != 0)
            continue;
        event->run(event->count / 10);
        long long begin = now_ns();
        event->run(event->count);
        printf("%s %.1f\n", event->name, (double)(now_ns() - begin) / event->count);
        fflush(stdout);
    }
    return 0;
}
