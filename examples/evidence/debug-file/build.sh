# A library as distributions ship it: stripped, with its symbols in a debug file that has the same build-id.
gcc -g -O1 -fPIC -shared -Wl,--build-id=0x5eed0123 -o libhouse.so house.c
mkdir -p debug/.build-id/5e
objcopy --only-keep-debug libhouse.so debug/.build-id/5e/ed0123.debug
strip -s libhouse.so
