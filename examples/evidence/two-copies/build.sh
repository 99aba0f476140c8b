# scikit-learn's wheel brings a libgomp of its own, and the process has the system's already.
