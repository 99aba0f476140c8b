# musl refuses. It has no surplus at all: a library that comes after the start and reaches its own thread-local
# variables as initial-exec is refused, be it for one byte.
echo '__thread char byte __attribute__((tls_model("initial-exec"))); char *touch(void) { return &byte; }' > musl.c
musl-gcc -shared -fPIC -o musl.so musl.c
musl-gcc -o musl-opener opener.c
