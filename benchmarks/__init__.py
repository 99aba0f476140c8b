"""dlwhy against its peers: ratios taken in one run on the same files.

`./dev bench` runs them, `budgets.toml` has the gates, `docs/performance.md` keeps the table.
"""
