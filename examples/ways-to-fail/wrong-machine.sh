# Wrong machine that says "No such file". A file of another machine is passed over in silence, and the message is that of
# a file which is not there; by path as well, though everybody can see it.
echo 'int answer(void) { return 42; }' > answer.c
gcc -shared -fPIC -o libanswer-of-another-machine.so answer.c
printf '\267\000' | dd of=libanswer-of-another-machine.so bs=1 seek=18 conv=notrunc status=none  # e_machine: AArch64
