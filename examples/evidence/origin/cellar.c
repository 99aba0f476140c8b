static __thread char cellar[4000];
extern __thread int tally;
int innocent(void) { return tally; }
char *work(int n) { tally += n; return &cellar[n]; }
