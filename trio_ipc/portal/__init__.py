"""How programs that are not on Trio get to what is: a Trio thread, and what is kept open in it.

The adapters are made of this: :mod:`trio_ipc.blocking` and :mod:`trio_ipc.aio`. Only they import it, and so
    anyio.
"""

from .door import Door, check_portal
from .jobs import Job, as_async
from .kept import Kept

__all__ = ["Door", "Job", "Kept", "as_async", "check_portal"]
