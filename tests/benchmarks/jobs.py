"""The end of :mod:`.workers` that is in the process itself: jobs from standard input, answers to its output.

Each is one JSON object a line. The process ends at once when its standard input does, so that it does not
outlive the program that has started it, however that ends. This module must import nothing that a contender
would pay for.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import Any


def incoming() -> queue.SimpleQueue[str]:
    """Return where lines of standard input arrive; from now on its end is the end of this process."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=end_with_stdin, args=(lines,), daemon=True).start()
    return lines


def end_with_stdin(lines: queue.SimpleQueue[str] | None = None) -> None:
    """End this process when standard input does; keep the lines that come before. For a thread."""
    for line in sys.stdin:
        if lines is not None:
            lines.put(line)
    os._exit(0)


def write(answer: dict[str, Any]) -> None:
    """Write a response."""
    print(json.dumps(answer), flush=True)
