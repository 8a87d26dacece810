#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 8
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_spinlock_t spin; static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static long guarded, spun; static long pair[2]; static atomic_int torn;
static atomic_long added, swapped, bits; static _Atomic uint8_t byte; static _Atomic uint16_t half; static _Atomic uint32_t word;
static _Atomic(long) minimum = 1l << 40;

static void each(void *(*body)(void *), int count) {
    pthread_t threads[64];
    for (long i = 0; i < count; i++) if (pthread_create(&threads[i], NULL, body, (void *)i)) exit(9);
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
}
static void *locks(void *arg) { (void)arg; for (int i = 0; i < 20000; i++) { pthread_mutex_lock(&mutex); guarded++; pthread_mutex_unlock(&mutex); } return NULL; }
static void *spins(void *arg) { (void)arg; for (int i = 0; i < 5000; i++) { while (pthread_spin_trylock(&spin)) sched_yield(); spun++; pthread_spin_unlock(&spin); } return NULL; }
static void *atomics(void *arg) {
    long id = (long)arg;
    for (int i = 0; i < 40000; i++) {
        atomic_fetch_add(&added, 1);
        atomic_fetch_add_explicit(&byte, 1, memory_order_relaxed); atomic_fetch_add(&half, 3); atomic_fetch_sub(&word, 5);
        long seen = atomic_load(&swapped);
        while (!atomic_compare_exchange_weak(&swapped, &seen, seen + 2)) {}
        atomic_fetch_xor(&bits, 1l << (id * 7)); 
        long low = atomic_load_explicit(&minimum, memory_order_relaxed), mine = 1000000 - id * 1000 - i % 1000;
        while (mine < low && !atomic_compare_exchange_weak_explicit(&minimum, &low, mine, memory_order_acq_rel, memory_order_relaxed)) {}
    }
    return NULL;
}
static void *readers(void *arg) {
    for (int i = 0; i < 4000; i++) {
        if ((long)arg < 2) { pthread_rwlock_wrlock(&rwlock); pair[0]++; pair[1]++; pthread_rwlock_unlock(&rwlock); }
        else { pthread_rwlock_rdlock(&rwlock); if (pair[0] != pair[1]) torn++; pthread_rwlock_unlock(&rwlock); }
    }
    return NULL;
}
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER; static int ball;
static void *pingpong(void *arg) {
    for (int i = 0; i < 3000; i++) {
        pthread_mutex_lock(&mutex);
        while (ball % 2 != (int)(long)arg) pthread_cond_wait(&turn, &mutex);
        ball++; pthread_cond_signal(&turn); pthread_mutex_unlock(&mutex);
    }
    return NULL;
}
static pthread_barrier_t barrier; static int rounds[THREADS]; static atomic_int uneven;
static void *barriers(void *arg) {
    long id = (long)arg;
    for (int i = 0; i < 300; i++) {
        rounds[id]++;
        pthread_barrier_wait(&barrier);
        for (int t = 0; t < THREADS; t++) if (rounds[t] != i + 1) uneven++;
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}
/* Message passing and store buffering: outcomes the architecture forbids. */
static atomic_int data, flag, x, y, broken; static int r[2]; static pthread_barrier_t both;
static void *messages(void *arg) {
    for (int i = 1; i <= 20000; i++) {
        if (arg == NULL) {
            atomic_store_explicit(&data, i, memory_order_relaxed); atomic_store_explicit(&flag, i, memory_order_release);
            while (atomic_load_explicit(&y, memory_order_acquire) != i) sched_yield();
        } else {
            while (atomic_load_explicit(&flag, memory_order_acquire) != i) sched_yield();
            if (atomic_load_explicit(&data, memory_order_relaxed) != i) broken++;
            atomic_store_explicit(&y, i, memory_order_release);
        }
    }
    return NULL;
}
static void *buffering(void *arg) {
    for (int i = 0; i < 2000; i++) {
        pthread_barrier_wait(&both);
        if (arg == NULL) { atomic_store(&x, 1); r[0] = atomic_load(&flag); } else { atomic_store(&flag, 1); r[1] = atomic_load(&x); }
        pthread_barrier_wait(&both);
        if (arg == NULL) { if (!r[0] && !r[1]) broken++; atomic_store(&x, 0); atomic_store(&flag, 0); }
        pthread_barrier_wait(&both);
    }
    return NULL;
}
/* A queue of bounded length between producers and consumers. */
static sem_t space, items; static int ring[16]; static unsigned head, tail; static long consumed;
static void *queue(void *arg) {
    for (int i = 0; i < 3000; i++) {
        if ((long)arg % 2) { sem_wait(&space); pthread_mutex_lock(&mutex); ring[head++ % 16] = i; pthread_mutex_unlock(&mutex); sem_post(&items); }
        else { sem_wait(&items); pthread_mutex_lock(&mutex); consumed += ring[tail++ % 16]; pthread_mutex_unlock(&mutex); sem_post(&space); }
    }
    return NULL;
}
static __thread long own; static atomic_long owned;
static void *locals(void *arg) { own = (long)arg; for (int i = 0; i < 1000; i++) { own++; free(malloc((size_t)(i * 37 % 5000 + 1))); } owned += own; return NULL; }
/* A lock-free stack: nodes pushed and popped with compare-and-swap. */
struct node { struct node *next; long value; };
static _Atomic(struct node *) top;
static void *stack(void *arg) {
    struct node *nodes = malloc(2000 * sizeof *nodes);
    for (int i = 0; i < 2000; i++) {
        nodes[i].value = (long)arg * 2000 + i; struct node *seen = atomic_load(&top);
        do nodes[i].next = seen; while (!atomic_compare_exchange_weak(&top, &seen, &nodes[i]));
    }
    return NULL;
}
int main(void) {
    pthread_spin_init(&spin, 0); sem_init(&space, 0, 16); sem_init(&items, 0, 0);
    pthread_barrier_init(&barrier, NULL, THREADS); pthread_barrier_init(&both, NULL, 2);
    each(locks, THREADS); printf("mutex %ld\n", guarded);
    each(spins, THREADS); printf("spin %ld\n", spun);
    each(atomics, THREADS); printf("atomics %ld %ld %lx %d %d %u %ld\n", added, swapped, bits, byte, half, word, minimum);
    each(readers, THREADS); printf("rwlock %ld %ld %d\n", pair[0], pair[1], torn);
    each(pingpong, 2); printf("pingpong %d\n", ball);
    each(barriers, THREADS); printf("barrier %d %d\n", rounds[3], uneven);
    each(messages, 2); atomic_store(&flag, 0); printf("messages %d\n", broken);
    each(buffering, 2); printf("buffering %d\n", broken);
    each(queue, THREADS); printf("queue %ld\n", consumed);
    for (int i = 0; i < 10; i++) each(locals, 16);
    printf("locals %ld\n", owned);
    each(stack, THREADS); long count = 0, sum = 0; for (struct node *n = top; n; n = n->next) count++, sum += n->value;
    printf("stack %ld %ld\n", count, sum);
    return 0;
}
