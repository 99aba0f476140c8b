"""The real loader as oracle: what dlwhy predicts against what ld.so does, on files made for the purpose."""
