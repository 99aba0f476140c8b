# A library that asks for three symbols of different age.
gcc -O1 -D_FILE_OFFSET_BITS=64 -fPIC -shared -o libfoo.so foo.c
