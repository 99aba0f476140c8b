/* Opens the libraries that it is given, one after the other, and stops at the first that is refused. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    for (int at = 1; at < argc; at++)
        if (!dlopen(argv[at], RTLD_NOW)) {
            puts(dlerror());
            return 1;
        }
    puts("loads");
    return 0;
}
