# A missing dependency's dependency. The library that was asked for is there, what it needs is there, and what that
# needs is not.
echo 'int deepest(void) { return 42; }' > deepest.c
echo 'int deepest(void); int deeper(void) { return deepest(); }' > deeper.c
echo 'int deeper(void); int answer(void) { return deeper(); }' > dependency.c
gcc -shared -fPIC -o libdeepest.so deepest.c
gcc -shared -fPIC -o libdeeper.so deeper.c -L. -ldeepest -Wl,-rpath,'$ORIGIN'
gcc -shared -fPIC -o dependency.so dependency.c -L. -ldeeper -Wl,-rpath,'$ORIGIN' -Wl,--allow-shlib-undefined
rm libdeepest.so
