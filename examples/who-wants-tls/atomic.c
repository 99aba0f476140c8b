/* One instruction that cannot be divided. */
static _Atomic long counter;

void counter_inc(void) { counter++; }
long counter_get(void) { return counter; }
void counter_spin(long times) { while (times-- > 0) counter_inc(); }
