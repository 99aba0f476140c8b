# The libgomp that auditwheel copied into scikit-learn's wheel.
