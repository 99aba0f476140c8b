# A library in C++ and C with its symbols: every variable has a name, and each name an owner.
g++ -O1 -fPIC -c parlour.cc
gcc -O1 -fPIC -c clock.c
g++ -shared -o libhouse.so parlour.o clock.o
