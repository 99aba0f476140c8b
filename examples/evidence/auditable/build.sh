# The addon without its Cargo.lock, with the section that cargo-auditable adds: the graph of what was built.
cp "$WITHOUT_GO/addon/index.node" .
"$PYTHON" dep_v0.py "$WITHOUT_GO" dep-v0
objcopy --add-section .dep-v0=dep-v0 index.node
