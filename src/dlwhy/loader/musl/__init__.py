"""musl: a loader of its own, by its own sources (ldso/dynlink.c). It checks little and reads memory as it finds it."""
