# A program as plugin. A position-independent executable is ET_DYN like any library, and was opened as one until 2.29.
echo 'int answer(void) { return 42; } int main(void) { return answer(); }' > pie.c
gcc -pie -fPIE -rdynamic -o pie.so pie.c
