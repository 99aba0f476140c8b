# A JNI library that insists on a fixed place for its variables. The JVM's threads run already when it opens one, so they
# must fit into the surplus that all late loads share: 1000 bytes do, 4096 do not.
cat > room.c <<'C'
static __thread char room[SIZE] __attribute__((tls_model("initial-exec")));
char *enter(int i) { return &room[i]; }
C
gcc -DSIZE=1000 -shared -fPIC -o libsmall.so room.c
gcc -DSIZE=4096 -shared -fPIC -o libroom.so room.c
"$PYTHON" load_class.py  # writes Load.class, so that a JRE without a compiler will do
