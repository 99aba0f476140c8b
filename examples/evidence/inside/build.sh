# The same addon, built with full debug information (debug = 2).
cp -r "$WITHOUT_GO" story
(cd story && CARGO_PROFILE_RELEASE_DEBUG=2 cargo build --quiet --release --locked --target-dir target)
mv story/target/release/libvalet.so index.node
mv story/Cargo.lock .
rm -r story
