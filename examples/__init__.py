"""Two real programs on `trio_ipc`, and a demonstration that runs them both.

`examples.procmond` is a collector of this machine's processes, `examples.agent` asks it and shows what it
says. They use nothing of the library but its public names, and the library must never import them. The wheel
has them as `trio_ipc.examples`, so that they name each other relatively.
"""

import importlib.util
import sys

_MISSING = [name for name in ("psutil", "rich") if importlib.util.find_spec(name) is None]

if _MISSING:
    # Every program comes by here first. It needs no traceback to be told that.
    sys.exit(
        f"{__name__}: {' and '.join(_MISSING)} must be installed, which the extra 'examples' brings: "
        "python -m pip install 'trio-ipc[examples]'"
    )
