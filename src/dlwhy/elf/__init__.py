"""Bytes -> facts: our own ELF reader. It knows no path, no host and no loader."""
