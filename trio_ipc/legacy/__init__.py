"""The legacy transport: the way back, by one setting, if the default one should ever let an operator down.

Written by hand against the system's own calls, it shares neither input and output nor framing with the
default: what is wrong there can't be wrong here. What both share has nothing to do with bytes: settings,
errors, counters, who a peer is and who it may be, whose directory a path is in, and the starters' lock.
This package must never import the default's streams, listeners, framing or checksums.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from trio_ipc.legacy.pipe import connect, connect_nowait
    from trio_ipc.legacy.pipe_listener import adopt, listen
else:
    from trio_ipc.legacy.unix import adopt, connect, connect_nowait, listen

__all__ = ["adopt", "connect", "connect_nowait", "listen"]
