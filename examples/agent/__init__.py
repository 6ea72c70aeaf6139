"""An agent: asks a collector for this machine's processes, shows them, and reports what changes.

    python -m examples.agent --endpoint /tmp/me/procmond.sock --once

`paging` (whole responses, however large), `changes` (what differs between two of them), `display` (tables
and JSON), `__main__` (the program).
"""
