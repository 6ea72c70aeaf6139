"""A collector: answers DaemonEye's process tasks with what `psutil` sees on this machine.

    python -m examples.procmond --endpoint /tmp/me/procmond.sock

From the bottom up: `bounded` (a cache that cannot grow), `hashing` (files to digests), `images` (which
file a process runs), `processes` (process records), `collector` (tasks to results), `__main__` (the
program). All but the last two are blocking code, which runs in worker threads.
"""
