# The story's addon with backoff 0.3, which wants rand 0.8, and with backoff 0.1.6, which wants rand 0.6.5.
mkdir yesterday today without-go
cp "$RAND_08/addon/index.node" "$RAND_08/Cargo.lock" yesterday/
cp "$STORY/addon/index.node" "$STORY/Cargo.lock" today/
cp "$WITHOUT_GO/addon/index.node" "$WITHOUT_GO/Cargo.lock" without-go/
