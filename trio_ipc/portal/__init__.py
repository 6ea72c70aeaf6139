"""How programs that are not on Trio get to what is: a Trio thread, and what is kept open in it.

The adapters are made of this: :mod:`trio_ipc.blocking` and :mod:`trio_ipc.aio`. Only they import it, and so
    anyio.
"""

from .adapter import Adapter, check_portal
from .jobs import Job, as_async
from .kept import Kept

__all__ = ["Adapter", "Job", "Kept", "as_async", "check_portal"]
