# An executable stack. Until glibc 2.40 the loader made all stacks executable when a library asked for it. Since 2.41
# dlopen refuses, and most often it is one assembler file without a .note.GNU-stack that asks.
cat > execstack.s <<'S'
.globl answer
answer: mov $42, %eax
        ret
S
gcc -shared -o execstack.so -Wl,-z,execstack execstack.s
