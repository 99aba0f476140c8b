# Two copies of libgomp. Wheels bring libgomp along under a name of their own, so one process gets several, and each
# takes static TLS anew. What other libraries took before (here one of 1500 bytes) decides which of them is refused.
cat > others.c <<'C'
static __thread char others[1500] __attribute__((tls_model("initial-exec")));
char *touch(void) { return others; }
C
gcc -shared -fPIC -o others.so others.c
for copy in a b; do
    echo 'int omp_get_num_threads(void); int user(void) { return omp_get_num_threads(); }' > user.c
    # the name that a wheel's builder gives it, as long as the old one
    sed "s/libgomp\.so\.1\x00/libgomp-$copy.so\x00/g" "$(gcc -print-file-name=libgomp.so.1)" > libgomp-$copy.so
    gcc -shared -fPIC -o user-$copy.so user.c ./libgomp-$copy.so -Wl,-rpath,'$ORIGIN'
done
