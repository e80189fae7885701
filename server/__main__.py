"""`python -m server`: how `up` starts its own parts, whatever the PATH says."""

from __future__ import annotations

from server.cli import main

if __name__ == "__main__":
    main()
