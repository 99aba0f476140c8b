static __thread int turns __attribute__((aligned(64)));
__thread long hid __attribute__((visibility("hidden")));
int other(void) { hid++; return ++turns; }
