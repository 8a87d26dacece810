/*
 * fsload: loads a file system.
 *   walk DIRECTORY             lists all that is below it, and asks for each file's attributes
 *   churn DIRECTORY COUNT      makes a file, writes 4 KiB, closes and removes it, COUNT times
 *   stream FILE                reads it from start to end, 1 MiB at a time
 *   disk FILE HOW BYTES COUNT  reads or writes BYTES of it COUNT times, past all caches:
 *                              HOW is rr or rw, at random places, or sr or sw, in a row
 *   answer DIRECTORY COUNT     makes DIRECTORY/answers/N when it hears that somebody else has
 *                              written DIRECTORY/N, until COUNT were
 * Prints how many of them there were and how many nanoseconds all took.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE (1 << 20)

static char *piece;
static long long done;

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int count(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)path;
    (void)where;
    if (type == FTW_NS || type == FTW_DNR)
        return 1;
    done += S_ISREG(info->st_mode);
    return 0;
}

static void churn(const char *directory, long long times)
{
    char path[4096];
    for (; done < times; done++) {
        snprintf(path, sizeof path, "%s/file-%lld", directory, done);
        int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (file < 0)
            fail(path);
        if (write(file, piece, 4096) != 4096 || close(file) != 0 || unlink(path) != 0)
            fail(path);
    }
}

static void stream(const char *path)
{
    int file = open(path, O_RDONLY);
    ssize_t length;
    if (file < 0)
        fail(path);
    while ((length = read(file, piece, PIECE)) > 0)
        done += length;
    if (length < 0)
        fail(path);
}

static void disk(const char *path, const char *how, long long bytes, long long times)
{
    int writes = how[1] == 'w';
    int file = open(path, (writes ? O_WRONLY : O_RDONLY) | O_DIRECT);
    struct stat info;
    uint64_t state = 88172645463325252ULL;
    if (file < 0 || fstat(file, &info) != 0)
        fail(path);
    long long places = info.st_size / bytes;
    if (bytes > PIECE || places < 1)
        fail("BYTES");
    for (; done < times; done++) {
        long long at = done;
        if (how[0] == 'r') {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            at = state >> 1;
        }
        at = at % places * bytes;
        ssize_t length = writes ? pwrite(file, piece, bytes, at) : pread(file, piece, bytes, at);
        if (length != bytes)
            fail(path);
    }
    /* What has been written is on the disk at the end, as it is for fio's end_fsync. */
    if (writes && fdatasync(file) != 0)
        fail("fdatasync");
}

static void answer(const char *directory, long long times)
{
    static char buffer[1 << 16] __attribute__((aligned(8)));
    char path[4096];
    int queue = inotify_init1(0);
    if (queue < 0 || inotify_add_watch(queue, directory, IN_CLOSE_WRITE) < 0)
        fail(directory);
    /* It says that it listens. */
    for (const char *name = "ready"; done <= times;) {
        snprintf(path, sizeof path, "%s/answers/%s", directory, name);
        int file = open(path, O_WRONLY | O_CREAT, 0644);
        if (file < 0 || close(file) != 0)
            fail(path);
        if (done == times)
            return;
        struct inotify_event *event = (struct inotify_event *)buffer;
        if (read(queue, buffer, sizeof buffer) < 0 || event->len == 0)
            fail("inotify");
        name = event->name;
        done++;
    }
}

int main(int argc, char **argv)
{
    if (argc < 3 || posix_memalign((void **)&piece, 4096, PIECE) != 0)
        return 2;
    memset(piece, 'x', PIECE);
    long long begin = now();
    if (strcmp(argv[1], "walk") == 0) {
        if (nftw(argv[2], count, 64, FTW_PHYS) != 0)
            fail(argv[2]);
    } else if (strcmp(argv[1], "churn") == 0 && argc == 4) {
        churn(argv[2], atoll(argv[3]));
    } else if (strcmp(argv[1], "stream") == 0) {
        stream(argv[2]);
    } else if (strcmp(argv[1], "answer") == 0 && argc == 4) {
        answer(argv[2], atoll(argv[3]));
    } else if (strcmp(argv[1], "disk") == 0 && argc == 6) {
        disk(argv[2], argv[3], atoll(argv[4]), atoll(argv[5]));
    } else {
        return 2;
    }
    printf("%lld %lld\n", done, now() - begin);
    return 0;
}
