/* One process on each CPU draws random numbers and reads the clock, without end,
 * into a ring in shared memory. `spinners RING` starts them; `spinners RING show`
 * prints what is in the ring, oldest first.
 *
 * Each stops some draws after it has seen the wall clock jump, so that what it
 * drew around the jump stays to be read. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define CPUS 4
#define ENTRIES 16384
#define AFTER_JUMP 2000
#define JUMP_NS 1000000000ull

struct entry { uint64_t number, wall_ns; };
struct lane { volatile uint64_t next; struct entry entries[ENTRIES]; };

static uint64_t wall_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void spin(struct lane *lane, int cpu)
{
	uint64_t last = wall_ns(), left = UINT64_MAX;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		_exit(1);
	while (left--) {
		struct entry *entry = &lane->entries[lane->next % ENTRIES];

		getrandom(&entry->number, sizeof(entry->number), 0);
		entry->wall_ns = wall_ns();
		if (left > AFTER_JUMP && entry->wall_ns - last > JUMP_NS)
			left = AFTER_JUMP;
		last = entry->wall_ns;
		lane->next++;
	}
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
	struct lane *lanes;
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (fd < 0 || ftruncate(fd, CPUS * sizeof(*lanes)) || cpus > CPUS)
		return 1;
	lanes = mmap(0, CPUS * sizeof(*lanes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (lanes == MAP_FAILED)
		return 1;
	for (int cpu = 0; argc == 2 && cpu < cpus; cpu++)
		if (!fork()) {
			setsid();
			spin(&lanes[cpu], cpu);
		}
	for (int cpu = 0; argc > 2 && cpu < cpus; cpu++) {
		uint64_t end = lanes[cpu].next;
		uint64_t at = end > ENTRIES ? end - ENTRIES : 0;

		for (; at < end; at++) {
			struct entry *entry = &lanes[cpu].entries[at % ENTRIES];

			printf("%d %llu %016llx %llu\n", cpu, (unsigned long long)at,
			       (unsigned long long)entry->number,
			       (unsigned long long)entry->wall_ns);
		}
	}
	return 0;
}
