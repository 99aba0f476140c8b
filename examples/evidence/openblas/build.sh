# OpenBLAS as the wheel of numpy brings it: its TLS is large, and dynamic.
