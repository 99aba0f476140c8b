/* One thread at a time. */
#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long counter;

void counter_inc(void) {
    pthread_mutex_lock(&lock);
    counter++;
    pthread_mutex_unlock(&lock);
}
long counter_get(void) {
    pthread_mutex_lock(&lock);
    long seen = counter;
    pthread_mutex_unlock(&lock);
    return seen;
}
void counter_spin(long times) { while (times-- > 0) counter_inc(); }
