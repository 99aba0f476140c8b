# The addon of the story without its Go part, stripped of every name.
cp "$WITHOUT_GO/addon/index.node" named.node
strip -s -o index.node named.node
