# Alignment. The segment is 8 bytes, and there is room for hundreds. But the static block that libraries loaded later
# share is aligned to 64, this variable wants 4096, and the message is the same as if the room were used up.
cat > alignment.c <<'C'
static __thread char page[8] __attribute__((aligned(4096), tls_model("initial-exec")));
char *touch(void) { return page; }
C
gcc -shared -fPIC -o alignment.so alignment.c
