/*
 * readall DIRECTORY: reads every regular file below it from start to end, and prints
 * how many there were and their bytes.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <unistd.h>

static char piece[131072];
static long long files, bytes;

static int take(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)where;
    if (type != FTW_F || !S_ISREG(info->st_mode))
        return 0;
    int file = open(path, O_RDONLY);
    ssize_t count;
    if (file < 0)
        return 1;
    while ((count = read(file, piece, sizeof piece)) > 0)
        bytes += count;
    close(file);
    files++;
    return count < 0;
}

int main(int argc, char **argv)
{
    if (argc != 2 || nftw(argv[1], take, 64, FTW_PHYS) != 0)
        return 1;
    printf("%lld files, %lld bytes\n", files, bytes);
    return 0;
}
