"""Scripts of the workshop, for ./dev: the build backend, the layers, and what writes generated files."""
