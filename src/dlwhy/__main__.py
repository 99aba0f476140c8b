"""`python -m dlwhy`."""

from __future__ import annotations

from dlwhy.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
