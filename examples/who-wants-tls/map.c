/* A count for each thread in a map, keyed by the thread's id: thread-local storage by hand, behind the legacy
   interface. Finding one's own count takes a lock each time, and a new thread may get the id, and the count, of one that
   has ended. */
#include <pthread.h>

enum { SLOTS = 1024 };
static struct { pthread_t thread; long count; } slots[SLOTS];
static int used;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static long *mine(void) {
    pthread_t self = pthread_self();
    for (int at = 0; at < used; at++)
        if (pthread_equal(slots[at].thread, self)) return &slots[at].count;
    if (used == SLOTS) return &slots[SLOTS - 1].count;
    slots[used].thread = self;
    return &slots[used++].count;
}
void counter_inc(void) {
    pthread_mutex_lock(&lock);
    ++*mine();
    pthread_mutex_unlock(&lock);
}
long counter_get(void) {
    pthread_mutex_lock(&lock);
    long seen = *mine();
    pthread_mutex_unlock(&lock);
    return seen;
}
void counter_spin(long times) { while (times-- > 0) counter_inc(); }
