# @swc's addon for x86-64: a small loader in front of a compressed library.
