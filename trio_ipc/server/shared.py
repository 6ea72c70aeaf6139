"""What all connections of a server have in common. This module must never know a connection."""

from __future__ import annotations

from typing import Generic

import attrs
import trio

from trio_ipc.channel import Cores
from trio_ipc.config import IpcConfig
from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.logs import LimitedLog

from .handling import Handler
from .variants import VariantLog
from .watchdog import Watchdog


@attrs.frozen(kw_only=True)
class Shared(Generic[RequestT, ResponseT]):
    """What all connections of a server have in common."""

    handler: Handler[RequestT, ResponseT]
    contract: Contract[RequestT, ResponseT]
    config: IpcConfig
    watchdog: Watchdog
    nursery: trio.Nursery
    failures: LimitedLog
    variants: VariantLog = attrs.field(factory=VariantLog)
    cores: Cores = attrs.field(factory=Cores)
