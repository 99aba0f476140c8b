"""Report -> str. Nothing here computes, compares or decides; two renderers of one report never disagree."""
