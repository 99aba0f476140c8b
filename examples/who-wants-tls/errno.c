/* The thread-local variable that everybody has used: errno. */
#include <errno.h>

void errno_set(int value) { errno = value; }
int errno_get(void) { return errno; }
