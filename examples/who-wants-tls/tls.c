/* One word more, and every thread has a counter of its own: no lock, and the legacy interface stays. */
static __thread volatile long counter;

void counter_inc(void) { counter = counter + 1; }
long counter_get(void) { return counter; }
void counter_spin(long times) { while (times-- > 0) counter_inc(); }
