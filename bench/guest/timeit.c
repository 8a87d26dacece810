/*
 * timeit PROGRAM ARGUMENT...: runs a program and prints how long it took from
 * before fork to after wait, so that both machines are timed by the same
 * clock reader. The program's output is passed through, to be compared.
 */
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
    int status;
    long long begin = now_ns();
    if (argc < 2)
        return 2;
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[1], argv + 1);
        perror(argv[1]);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 1;
    printf("@@ns %lld\n", now_ns() - begin);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}
