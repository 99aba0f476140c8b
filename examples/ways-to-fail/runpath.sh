# RUNPATH is not inherited. The directory stands in the library that was opened, and serves what that one needs itself.
# What its needs need is looked for with their own RUNPATH, and they have none. (The older RPATH would be inherited.)
mkdir -p inner
echo 'int deepest(void) { return 42; }' > deepest.c
echo 'int deepest(void); int deeper(void) { return deepest(); }' > deeper.c
echo 'int deeper(void); int answer(void) { return deeper(); }' > runpath.c
gcc -shared -fPIC -o inner/libdeepest.so deepest.c
gcc -shared -fPIC -o inner/libdeeper.so deeper.c -Linner -ldeepest
for tags in enable disable; do
    gcc -shared -fPIC -o runpath-$tags.so runpath.c -Linner -ldeeper -Wl,-rpath,'$ORIGIN/inner' -Wl,--$tags-new-dtags \
        -Wl,--allow-shlib-undefined
done
