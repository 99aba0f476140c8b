#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <time.h>
int foo(struct timespec *now) { return clock_gettime(CLOCK_MONOTONIC, now) + fcntl(0, F_GETFL) + !dlopen(0, RTLD_LAZY); }
