"""Which tests say whether a set of versions works: all that meets a dependency, and little else.

They are what `make test-oldest`, `make test-protobuf` and `make compatibility` run, for each set anew, so
that they have to be quick.
"""

from __future__ import annotations

from typing import Final

SUBSET: Final = (
    "tests/wire",
    "tests/daemoneye",
    "tests/test_castagnoli.py",
    "tests/test_contract.py",
    "tests/test_package.py",
    "tests/test_telemetry_exporters.py",
    "tests/client/test_client.py",
    "tests/client/test_client_broken.py",
    "tests/server/test_handlers.py",
    "tests/server/test_handlers_meanwhile.py",
    "tests/hardening/test_python_decoder.py",
    "tests/testing/test_recorder.py",
    "tests/testing/test_recorder_failures.py",
    "tests/testing/test_recorder_showing.py",
)

if __name__ == "__main__":
    print(*SUBSET)
