"""What callers of a resilient client hand over, checked before anything is done with it.

This module must never know the client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trio_ipc.client.client import seconds_of
from trio_ipc.contract import Contract
from trio_ipc.errors import NoEndpointError, shown, shown_argument
from trio_ipc.functions import is_ordinary

from .endpoints import Endpoint, Upstream
from .settings import ResilientConfig


def endpoints_of(given: object) -> list[Endpoint]:
    """Return endpoints in a list. An iterator of the caller's runs here, and what it raises comes out.

    Raises:
        TypeError: they are no iterable, or one of them is something else.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(
            f"endpoints is {shown_argument(given)}, must be an iterable of Endpoints: [Endpoint(config)]"
        )
    return [*map(endpoint_of, given)]


def endpoint_of(given: object) -> Endpoint:
    """Return an endpoint that a caller gave.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(given, Endpoint):
        raise TypeError(f"an endpoint is {shown_argument(given)}, must be an Endpoint: Endpoint(config)")
    return given


def settings_of(given: object) -> ResilientConfig:
    """Return the settings that a caller gave, or the defaults for None.

    Raises:
        TypeError: it is something else.
    """
    if given is None:
        return ResilientConfig()
    if not isinstance(given, ResilientConfig):
        raise TypeError(f"settings is {shown_argument(given)}, must be a ResilientConfig or None")
    return given


def check_needs(given: object, contract: Contract[Any, Any]) -> None:
    """Check a caller's function of capabilities.

    Raises:
        TypeError: it is none, or async; or servers of this contract cannot be asked for capabilities.
    """
    if contract.negotiation is None:
        raise TypeError(f"needs was given, but the contract {contract.name} has no negotiation")
    if not is_ordinary(given):
        raise TypeError(f"needs is {shown(given)}, must be a function that is not async, or None")


def seconds_or(timeout: object, default_ms: int) -> float:
    """Return a timeout in seconds.

    Args:
        timeout: what the caller gave, None for the setting.
        default_ms: the setting, in milliseconds.

    Raises:
        TypeError: it is no number.
        ValueError: it is less than 0, or too large to be one.
    """
    return default_ms / 1000 if timeout is None else seconds_of(timeout, "the setting")


def upstream_of(endpoint_id: object, upstreams: Mapping[str, Upstream]) -> Upstream:
    """Return the endpoint of an id.

    Raises:
        TypeError: it is no str, as ids are.
        NoEndpointError: there is none of this id.
    """
    if not isinstance(endpoint_id, str):
        raise TypeError(f"the endpoint is {shown_argument(endpoint_id)}, must be the id of one, a str")
    upstream = upstreams.get(endpoint_id)
    if upstream is None:
        known = ", ".join(upstreams) or "none"
        raise NoEndpointError(f"there is no endpoint {shown(endpoint_id)}", hint=f"there are: {known}")
    return upstream
