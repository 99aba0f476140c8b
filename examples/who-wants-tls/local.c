/* Nothing shared: each thread counts in memory that it brings along, and the sums are joined at the end. The interface
   changes for it, which is why the legacy one is still around. */
void counter_inc(volatile long *mine) { *mine = *mine + 1; }
long counter_get(const long *mine) { return *mine; }
void counter_spin(volatile long *mine, long times) { while (times-- > 0) counter_inc(mine); }
