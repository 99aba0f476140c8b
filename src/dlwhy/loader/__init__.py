"""Facts + host -> what the loader would do. Pure, but for the one door `Objects`."""
