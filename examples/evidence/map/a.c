static __thread char big[4248];
__thread int exported;
static __thread short counter = 7;
char *touch(int i) { counter++; exported++; return &big[i]; }
