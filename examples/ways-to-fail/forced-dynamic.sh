# Forced dynamic. The owner's segment is tiny and was used the dynamic way, so each thread may have a copy of its own
# already. A library that comes later and wants it at a fixed place is refused, whatever is left of the static block.
cat > owner.c <<'C'
__thread int shared_count;
__attribute__((constructor)) static void used(void) { shared_count++; }
C
cat > forced-dynamic.c <<'C'
extern __thread int shared_count __attribute__((tls_model("initial-exec")));
int *touch(void) { return &shared_count; }
C
gcc -shared -fPIC -o libowner.so owner.c
gcc -shared -fPIC -o forced-dynamic.so forced-dynamic.c -L. -lowner -Wl,-rpath,'$ORIGIN'
