# cellar.c reaches tally the dynamic way, tally.c insists on initial-exec, and GNU ld makes all of it initial-exec.
gcc -O1 -fPIC -c cellar.c tally.c
ar rc libparts.a tally.o
gcc -shared -fuse-ld=bfd -Wl,-Map=linked.map -o linked.so cellar.o libparts.a
strip -s linked.so
