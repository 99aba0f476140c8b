# LD_AUDIT changes what is left: the loader makes the static block larger for it, and auditing libraries, with a C
# library of their own, use it. A profiler that is switched on can so decide whether a library loads.
echo 'unsigned la_version(unsigned version) { return version; }' > audit.c
gcc -shared -fPIC -o audit.so audit.c
for size in $(seq 1600 64 1984); do
    echo "static __thread char block[$size] __attribute__((tls_model(\"initial-exec\"))); char *touch(void) { return block; }" |
        gcc -shared -fPIC -o "takes-$size.so" -x c -
done
