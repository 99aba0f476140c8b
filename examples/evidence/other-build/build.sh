# A map of another build, of which one variable was larger: it is told and not believed.
gcc -O1 -fPIC -shared -fuse-ld=bfd -DROOM=700 -Wl,-Map=libhouse.map -o libhouse.so house.c
gcc -O1 -fPIC -shared -fuse-ld=bfd -DROOM=64 -o libhouse.so house.c
strip -s libhouse.so
