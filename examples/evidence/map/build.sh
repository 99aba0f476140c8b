# An object and a member of an archive, stripped to the last name, with the map that the linker wrote.
gcc -fPIC -O1 -c a.c
gcc -fPIC -O1 -fdata-sections -c b.c
ar rc libb.a b.o
gcc -shared -fuse-ld=bfd -Wl,-u,other,-Map=libdemo.map -o libdemo.so a.o libb.a
strip -s libdemo.so
