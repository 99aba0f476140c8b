# The archive of the story's Go part, and Rust's own standard library.
cp "$STORY/addon/libbutler.a" .
host=$(rustc -vV | sed -n 's/^host: //p')
cp "$(rustc --print sysroot)/lib/rustlib/$host"/lib/libstd-*.rlib libstd.rlib
