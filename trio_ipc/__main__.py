"""``python -m trio_ipc`` is the command ``trio-ipc``."""

from __future__ import annotations

import contextlib
import os
import sys

if __name__ == "__main__":
    with contextlib.suppress(OSError, IndexError):
        # Python looks there first for "-m", and the command last: no file there takes a module's place.
        if not sys.flags.safe_path and sys.path[0] == os.getcwd():
            del sys.path[0]
    from .cli.main import main

    sys.exit(main())
