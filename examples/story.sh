#!/bin/sh
# Builds the library of the README's picture into a directory: the TLS of a Node addon that was written in Rust and Go, by
# size, name and access, made with gcc. Nothing else of such an addon is in it.
#     examples/story.sh DIRECTORY && ./dlwhy check DIRECTORY/index.node
set -eu
out=${1:?usage: examples/story.sh DIRECTORY}
from=$(dirname -- "$(readlink -f -- "$0")")/../tests/fixtures/story
mkdir -p -- "$out"
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
for part in rust tlsg go addon; do
    gcc -c -O1 -fPIC -fno-toplevel-reorder -o "$work/$part.o" "$from/$part.c"
done
ar rcs "$work/libgo.a" "$work/tlsg.o" "$work/go.o"
gcc -shared -Wl,-u,story_load_g -o "$out/index.node" "$work/rust.o" "$work/addon.o" "$work/libgo.a"
objcopy -N nameless "$out/index.node"  # one variable loses its name, as a stripped part would
