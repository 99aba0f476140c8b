# The innocent named library. libowner.so reaches its 4000 bytes the dynamic way and would load by itself. It is
# innocent.so that insists on a fixed place for them, and libowner.so whose name stands in the message.
cat > owner.c <<'C'
__thread char shared_buffer[4000];
char *own(void) { return shared_buffer; }
C
cat > innocent.c <<'C'
extern __thread char shared_buffer[4000] __attribute__((tls_model("initial-exec")));
char *touch(void) { return shared_buffer; }
C
gcc -shared -fPIC -o libowner.so owner.c
gcc -shared -fPIC -o innocent.so innocent.c -L. -lowner -Wl,-rpath,'$ORIGIN'
