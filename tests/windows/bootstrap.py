"""Let Trio and processes start under Wine. Installed as ``sitecustomize`` of the Windows Python of the tests.

When Trio starts it asks every socket for its handle twice, to detect layered service providers. Wine has
no such providers and lacks one of the two ioctls, so the question that it can answer is asked twice
instead. Nothing else of Trio is touched.

On a busy machine Wine 8 fails now and then to start a process: it died before its first instruction, and
``CreateProcess`` says ERROR_INTERNAL_ERROR. It is started again, as nothing of it has run.

The package itself must never know that this file exists.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_MODULE = "trio._core._io_windows"

#: https://learn.microsoft.com/en-us/windows/win32/debug/system-error-codes--1300-1699-
_ERROR_INTERNAL_ERROR = 1359
_ATTEMPTS = 3


def _ask_what_wine_answers(module: ModuleType) -> None:
    ask: Any = module._get_underlying_socket
    which = module.WSAIoctls.SIO_BASE_HANDLE

    def ask_for_base_handle(sock: object, **_: object) -> Any:
        return ask(sock, which=which)

    module._get_underlying_socket = ask_for_base_handle  # type: ignore[attr-defined]


def started_again(create: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``CreateProcess`` that tries again where Wine lost the process before it had begun."""

    @functools.wraps(create)
    def create_process(*arguments: object) -> Any:
        for _ in range(_ATTEMPTS - 1):
            try:
                return create(*arguments)
            except OSError as exc:
                if getattr(exc, "winerror", None) != _ERROR_INTERNAL_ERROR:
                    raise
        return create(*arguments)

    return create_process


class _Patcher(MetaPathFinder):
    """Patch the one module as it is imported, so that a Python without Trio starts no slower."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            run(module)
            _ask_what_wine_answers(module)

        spec.loader.exec_module = run_and_patch  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Patcher())
if sys.platform == "win32":
    import _winapi  # which ``subprocess`` calls it by

    _winapi.CreateProcess = started_again(_winapi.CreateProcess)
