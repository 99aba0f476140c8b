# A library that opens others: a note lists two, with their features, and one is a constant in its data.
gcc -O1 -fPIC -shared -o libdoor.so door.c
