/*
 * pour out BYTES: writes so many bytes to its output.
 * pour in BYTES: reads so many from its input, and says so.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char piece[65536];

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int out = strcmp(argv[1], "out") == 0;
    long long left = atoll(argv[2]);
    memset(piece, 'x', sizeof piece);
    while (left > 0) {
        size_t most = left < (long long)sizeof piece ? (size_t)left : sizeof piece;
        ssize_t count = out ? write(1, piece, most) : read(0, piece, most);
        if (count <= 0 || piece[count - 1] != 'x')
            return 1;
        left -= count;
    }
    if (!out)
        puts("all");
    return 0;
}
