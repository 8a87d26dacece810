/*
 * netload WHAT ADDRESS PORT COUNT: loads a network, with a server that the bench has.
 *   send   sends COUNT bytes and waits until all have arrived
 *   recv   receives COUNT bytes
 *   crr    connects, asks, hears and closes, COUNT times
 *   rr     sends a byte and waits for one, COUNT times
 *   idle   opens COUNT connections, says so, and keeps them
 *   ping   sends an echo request and waits for the answer, COUNT times
 * Prints how many nanoseconds it took.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char piece[65536];
static struct sockaddr_in there;

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

static void put(int stream, const void *bytes, size_t count)
{
    const char *from = bytes;
    while (count > 0) {
        ssize_t done = write(stream, from, count);
        if (done <= 0)
            fail("write");
        from += done;
        count -= done;
    }
}

static int begin(char mode)
{
    int yes = 1, stream = socket(AF_INET, SOCK_STREAM, 0);
    if (stream < 0)
        fail("socket");
    if (connect(stream, (struct sockaddr *)&there, sizeof there) != 0)
        fail("connect");
    setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    put(stream, &mode, 1);
    return stream;
}

static void round_trip(int stream)
{
    char byte = 'x';
    put(stream, &byte, 1);
    if (read(stream, &byte, 1) != 1)
        fail("read");
}

/* A program's own socket for echo requests: the kernel numbers them. */
static void echo(int socket, int number)
{
    struct icmphdr request = { .type = ICMP_ECHO };
    struct timeval most = { .tv_sec = 10 };
    char answer[256];
    request.un.echo.sequence = htons(number);
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    if (send(socket, &request, sizeof request, 0) != sizeof request)
        fail("send");
    do {
        if (recv(socket, answer, sizeof answer, 0) < (ssize_t)sizeof request)
            fail("recv");
    } while (memcmp(answer + 6, &request.un.echo.sequence, 2) != 0);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    long long count = atoll(argv[4]);
    there.sin_family = AF_INET;
    there.sin_port = htons(atoi(argv[3]));
    if (inet_pton(AF_INET, argv[2], &there.sin_addr) != 1)
        return 2;
    long long begun = now();
    if (strcmp(argv[1], "send") == 0) {
        int stream = begin('d');
        for (long long left = count; left > 0;) {
            size_t most = left < (long long)sizeof piece ? (size_t)left : sizeof piece;
            put(stream, piece, most);
            left -= most;
        }
        shutdown(stream, SHUT_WR);
        if (read(stream, piece, 1) != 1)
            fail("read");
    } else if (strcmp(argv[1], "recv") == 0) {
        int stream = begin('u');
        put(stream, &count, sizeof count);
        for (long long left = count; left > 0;) {
            ssize_t got = read(stream, piece, sizeof piece);
            if (got <= 0)
                fail("read");
            left -= got;
        }
    } else if (strcmp(argv[1], "crr") == 0) {
        for (long long n = 0; n < count; n++) {
            int stream = begin('e');
            round_trip(stream);
            close(stream);
        }
    } else if (strcmp(argv[1], "rr") == 0) {
        int stream = begin('e');
        round_trip(stream);
        begun = now();
        for (long long n = 0; n < count; n++)
            round_trip(stream);
    } else if (strcmp(argv[1], "ping") == 0) {
        int pings = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
        if (pings < 0 || connect(pings, (struct sockaddr *)&there, sizeof there) != 0)
            fail("ping");
        echo(pings, 0);
        begun = now();
        for (long long n = 1; n <= count; n++)
            echo(pings, n);
    } else if (strcmp(argv[1], "idle") == 0) {
        struct rlimit most = { 65536, 65536 };
        setrlimit(RLIMIT_NOFILE, &most);
        for (long long n = 0; n < count; n++)
            round_trip(begin('e'));
        printf("open\n");
        fflush(stdout);
        pause();
    } else
        return 2;
    printf("%lld\n", now() - begun);
    return 0;
}
