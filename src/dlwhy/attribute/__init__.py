"""Whose bytes are in a TLS segment, and whose relocations force it into the static block."""
