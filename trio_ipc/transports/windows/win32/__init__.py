"""What this package needs of Win32, declared once: numbers, structures and functions.

Each function is one system call with Python's values for its arguments, and an :exc:`OSError` with its
``winerror`` where the system reports a failure. This package must never decide anything: which rights, whose
security, what to do about a failure are its callers' business. Only for Windows.

Names and numbers are those of Microsoft's reference; each declaration's page is found there by its name.
"""

import sys

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

from .library import (
    ERROR_ACCESS_DENIED,
    ERROR_BROKEN_PIPE,
    ERROR_FILE_NOT_FOUND,
    ERROR_IO_PENDING,
    ERROR_NO_DATA,
    ERROR_NO_SYSTEM_RESOURCES,
    ERROR_NOT_FOUND,
    ERROR_OPERATION_ABORTED,
    ERROR_PIPE_BUSY,
    ERROR_PIPE_CONNECTED,
    ERROR_PIPE_NOT_CONNECTED,
    close_handle,
)
from .operations import (
    OVERLAPPED,
    begin_read,
    begin_write,
    cancel_io,
    cancel_operation,
    create_event,
    has_completed,
    operation,
    result_of,
    set_event,
    wait_for_event,
)
from .pipes import (
    FILE_FLAG_FIRST_PIPE_INSTANCE,
    FILE_FLAG_OVERLAPPED,
    FILE_READ_ATTRIBUTES,
    FILE_WRITE_DATA,
    GENERIC_READ,
    PIPE_ACCESS_DUPLEX,
    PIPE_READMODE_BYTE,
    PIPE_REJECT_REMOTE_CLIENTS,
    PIPE_TYPE_BYTE,
    PIPE_UNLIMITED_INSTANCES,
    PIPE_WAIT,
    SECURITY_IDENTIFICATION,
    SECURITY_SQOS_PRESENT,
    client_process_id,
    connect_named_pipe,
    create_file,
    create_named_pipe,
    peek_named_pipe,
    server_process_id,
)
from .security import (
    PROCESS_QUERY_LIMITED_INFORMATION,
    current_process,
    open_client_token,
    open_process,
    open_process_token,
    owner,
    security_descriptor,
    sid_name_use,
    token_user,
)

__all__ = [
    "ERROR_ACCESS_DENIED",
    "ERROR_BROKEN_PIPE",
    "ERROR_FILE_NOT_FOUND",
    "ERROR_IO_PENDING",
    "ERROR_NOT_FOUND",
    "ERROR_NO_DATA",
    "ERROR_NO_SYSTEM_RESOURCES",
    "ERROR_OPERATION_ABORTED",
    "ERROR_PIPE_BUSY",
    "ERROR_PIPE_CONNECTED",
    "ERROR_PIPE_NOT_CONNECTED",
    "FILE_FLAG_FIRST_PIPE_INSTANCE",
    "FILE_FLAG_OVERLAPPED",
    "FILE_READ_ATTRIBUTES",
    "FILE_WRITE_DATA",
    "GENERIC_READ",
    "OVERLAPPED",
    "PIPE_ACCESS_DUPLEX",
    "PIPE_READMODE_BYTE",
    "PIPE_REJECT_REMOTE_CLIENTS",
    "PIPE_TYPE_BYTE",
    "PIPE_UNLIMITED_INSTANCES",
    "PIPE_WAIT",
    "PROCESS_QUERY_LIMITED_INFORMATION",
    "SECURITY_IDENTIFICATION",
    "SECURITY_SQOS_PRESENT",
    "begin_read",
    "begin_write",
    "cancel_io",
    "cancel_operation",
    "client_process_id",
    "close_handle",
    "connect_named_pipe",
    "create_event",
    "create_file",
    "create_named_pipe",
    "current_process",
    "has_completed",
    "open_client_token",
    "open_process",
    "open_process_token",
    "operation",
    "owner",
    "peek_named_pipe",
    "result_of",
    "security_descriptor",
    "server_process_id",
    "set_event",
    "sid_name_use",
    "token_user",
    "wait_for_event",
]
