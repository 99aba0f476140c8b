/* A global behind the legacy interface, as it always was. Two threads may read the same value and both write it + 1. */
static volatile long counter;

void counter_inc(void) { counter = counter + 1; }
long counter_get(void) { return counter; }
void counter_spin(long times) { while (times-- > 0) counter_inc(); }
