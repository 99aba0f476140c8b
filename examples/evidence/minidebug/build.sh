# Symbols that a stripped file carries along, compressed, in .gnu_debugdata, as Fedora's do.
gcc -O1 -fPIC -shared -o libhouse.so house.c
objcopy --strip-debug libhouse.so symbols
"${PYTHON:-python3}" -c 'import lzma; open("symbols.xz", "wb").write(lzma.compress(open("symbols", "rb").read()))'
strip -s libhouse.so
objcopy --add-section .gnu_debugdata=symbols.xz libhouse.so
