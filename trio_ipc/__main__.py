"""``python -m trio_ipc`` is the command ``trio-ipc``."""

from __future__ import annotations

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
