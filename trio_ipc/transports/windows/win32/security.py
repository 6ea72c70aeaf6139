"""Whose a process or a pipe is, and descriptors that say who may do what.

Only for Windows.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from ctypes import wintypes
from typing import Any, Final

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

from .library import ADVAPI32, KERNEL32, check, declare

# --- Numbers (winnt.h, accctrl.h, sddl.h) -------------------------------------------------------------------

PROCESS_QUERY_LIMITED_INFORMATION: Final = 0x1000

_TOKEN_QUERY: Final = 0x0008
_TOKEN_USER: Final = 1
_SDDL_REVISION_1: Final = 1
_SE_KERNEL_OBJECT: Final = 6
_OWNER_SECURITY_INFORMATION: Final = 1

# --- Functions ----------------------------------------------------------------------------------------------


class _SID_AND_ATTRIBUTES(ctypes.Structure):  # noqa: N801  # the reference's name
    """The whole of TOKEN_USER (winnt.h)."""

    _fields_ = (("Sid", ctypes.c_void_p), ("Attributes", wintypes.DWORD))


_ConvertSidToStringSidW = declare(
    ADVAPI32, "ConvertSidToStringSidW", wintypes.BOOL, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
)
_ConvertStringSecurityDescriptor = declare(
    ADVAPI32,
    "ConvertStringSecurityDescriptorToSecurityDescriptorW",
    wintypes.BOOL,
    wintypes.LPCWSTR,
    wintypes.DWORD,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(wintypes.ULONG),
)
_GetCurrentProcess = declare(KERNEL32, "GetCurrentProcess", wintypes.HANDLE)
_GetCurrentThread = declare(KERNEL32, "GetCurrentThread", wintypes.HANDLE)
_GetSecurityInfo = declare(
    ADVAPI32,
    "GetSecurityInfo",
    wintypes.DWORD,
    wintypes.HANDLE,
    ctypes.c_int,
    wintypes.DWORD,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_void_p),
)
_GetTokenInformation = declare(
    ADVAPI32,
    "GetTokenInformation",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
)
_ImpersonateNamedPipeClient = declare(ADVAPI32, "ImpersonateNamedPipeClient", wintypes.BOOL, wintypes.HANDLE)
_ConvertStringSidToSidW = declare(
    ADVAPI32, "ConvertStringSidToSidW", wintypes.BOOL, wintypes.LPCWSTR, ctypes.POINTER(ctypes.c_void_p)
)
_LookupAccountSidW = declare(
    ADVAPI32,
    "LookupAccountSidW",
    wintypes.BOOL,
    wintypes.LPCWSTR,
    ctypes.c_void_p,
    wintypes.LPWSTR,
    ctypes.POINTER(wintypes.DWORD),
    wintypes.LPWSTR,
    ctypes.POINTER(wintypes.DWORD),
    ctypes.POINTER(ctypes.c_int),
)
_LocalFree = declare(KERNEL32, "LocalFree", ctypes.c_void_p, ctypes.c_void_p)
_OpenProcess = declare(
    KERNEL32, "OpenProcess", wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, wintypes.DWORD
)
_OpenProcessToken = declare(
    ADVAPI32,
    "OpenProcessToken",
    wintypes.BOOL,
    wintypes.HANDLE,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.HANDLE),
)
_OpenThreadToken = declare(
    ADVAPI32,
    "OpenThreadToken",
    wintypes.BOOL,
    wintypes.HANDLE,
    wintypes.DWORD,
    wintypes.BOOL,
    ctypes.POINTER(wintypes.HANDLE),
)
_RevertToSelf = declare(ADVAPI32, "RevertToSelf", wintypes.BOOL)


def current_process() -> int:
    """Return the pseudo handle of this process, which needs no closing (GetCurrentProcess)."""
    handle: int = _GetCurrentProcess()
    return handle


def open_process(pid: int, access: int) -> int:
    """Open another process and return its handle (OpenProcess)."""
    handle: int | None = _OpenProcess(access, False, pid)
    if handle is None:
        raise ctypes.WinError(ctypes.get_last_error())
    return handle


def open_process_token(process: int) -> int:
    """Open a process's token for queries and return its handle (OpenProcessToken)."""
    token = wintypes.HANDLE()
    check(_OpenProcessToken(process, _TOKEN_QUERY, ctypes.byref(token)))
    return token.value or 0


def open_client_token(pipe: int) -> int:
    """Open the token that a client of a pipe's server end has lent it, for queries, and return its handle.

    The thread has the token only for these three calls (ImpersonateNamedPipeClient, OpenThreadToken,
    RevertToSelf), and the garbage collector rests meanwhile. Where the thread could not put it off again
    the process ends at once, as the reference of RevertToSelf asks for.

    Raises OSError where the client has lent none, not even for identification, and, with a client that lends
    it anew with each write, before something was read.
    """
    token = wintypes.HANDLE()
    collects = gc.isenabled()
    gc.disable()
    try:
        check(_ImpersonateNamedPipeClient(pipe))
        opened = _OpenThreadToken(_GetCurrentThread(), _TOKEN_QUERY, True, ctypes.byref(token))
        error = ctypes.get_last_error()
        if not _RevertToSelf():
            os.abort()
    finally:
        if collects:
            gc.enable()
    if not opened:
        raise ctypes.WinError(error)
    return token.value or 0


def token_user(token: int) -> str:
    """Return the security identifier of a token's user as a string (GetTokenInformation, TokenUser)."""
    size = wintypes.DWORD()
    # The first call cannot succeed: it tells the size, for the identifier has no fixed one.
    _GetTokenInformation(token, _TOKEN_USER, None, 0, ctypes.byref(size))
    memory = ctypes.create_string_buffer(max(size.value, ctypes.sizeof(_SID_AND_ATTRIBUTES)))
    check(_GetTokenInformation(token, _TOKEN_USER, memory, len(memory), ctypes.byref(size)))
    return _sid_text(_SID_AND_ATTRIBUTES.from_buffer(memory).Sid)


def owner(handle: int) -> str:
    """Return the security identifier of the owner of an object as a string (GetSecurityInfo)."""
    sid, descriptor = ctypes.c_void_p(), ctypes.c_void_p()
    error = _GetSecurityInfo(
        handle,
        _SE_KERNEL_OBJECT,
        _OWNER_SECURITY_INFORMATION,
        ctypes.byref(sid),
        None,
        None,
        None,
        ctypes.byref(descriptor),
    )
    if error:
        raise ctypes.WinError(error)
    try:
        return _sid_text(sid)
    finally:
        _LocalFree(descriptor)


def _sid_text(sid: Any) -> str:
    text = ctypes.c_void_p()
    check(_ConvertSidToStringSidW(sid, ctypes.byref(text)))
    try:
        return ctypes.wstring_at(text)
    finally:
        _LocalFree(text)


def sid_name_use(text: str) -> int:
    """Return what an identifier is of, a SID_NAME_USE (LookupAccountSidW). It may ask a domain."""
    sid, use = ctypes.c_void_p(), ctypes.c_int()
    check(_ConvertStringSidToSidW(text, ctypes.byref(sid)))
    try:
        # Its name and its domain's, which nobody asks for; they have room for the longest there are.
        names = [(ctypes.create_unicode_buffer(512), wintypes.DWORD(512)) for _ in range(2)]
        (name, name_size), (domain, domain_size) = names
        sizes = ctypes.byref(name_size), ctypes.byref(domain_size)
        check(_LookupAccountSidW(None, sid, name, sizes[0], domain, sizes[1], ctypes.byref(use)))
        return use.value
    finally:
        _LocalFree(sid)


def security_descriptor(sddl: str) -> bytes:
    """Return the self-relative descriptor that a string describes.

    Raises OSError where the string has no meaning (ConvertStringSecurityDescriptorToSecurityDescriptorW).
    """
    descriptor = ctypes.c_void_p()
    size = wintypes.ULONG()
    check(
        _ConvertStringSecurityDescriptor(sddl, _SDDL_REVISION_1, ctypes.byref(descriptor), ctypes.byref(size))
    )
    try:
        return ctypes.string_at(descriptor, size.value)
    finally:
        _LocalFree(descriptor)
