"""Examines an endpoint for ``doctor``: its name, the settings, files, who listens, and what they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trio_ipc import Contract, ContractError, IpcConfig, IpcError, PeerPolicy
from trio_ipc.config import AUTO
from trio_ipc.endpoint import endpoint_in_full, endpoint_problem
from trio_ipc.transports.findings import BROKEN, GOOD, WARNING, Finding, of_files

from . import looking

#: States that are told by the file alone, where something is wrong with that.
_OF_FILES = {"absent", "forbidden", "unusable"}


async def examine(
    name: str,
    contract: Contract[Any, Any],
    load: Callable[[str], IpcConfig],
    policy: PeerPolicy,
    timeout: float,  # noqa: ASYNC109 - one response's
) -> list[Finding]:
    """Return all that is found of an endpoint. Raises nothing of ours.

    Args:
        name: as a person writes it.
        contract: what its server is taken to speak.
        load: loads the settings for a name in full.
        policy: whom a client trusts.
        timeout: seconds that the server has for a response.
    """
    try:
        full = endpoint_in_full(name)
    except OSError as exc:
        return [Finding("name", BROKEN, f"the working directory is gone: {exc.strerror}", "cd to another")]
    problem = endpoint_problem(full)
    if problem is not None:
        return [Finding("name", BROKEN, f"{name!r} is no endpoint: it must be {problem}", "write it so")]
    found = [Finding("name", GOOD, full)]
    try:
        config = load(full)
    except IpcError as exc:
        advice = exc.hint or "mend it: it comes from --config, or from a TRIO_IPC_... variable"
        return [*found, Finding("settings", BROKEN, exc.message, advice)]
    except OSError as exc:
        seen = f"{exc.filename}: {exc.strerror}"
        return [*found, Finding("settings", BROKEN, seen, "check the path of the file")]
    found.append(Finding("settings", GOOD, f"crc32_variant {config.crc32_variant}, {_limits(config)}"))
    files = list(of_files(config.endpoint_path, config.socket_group, policy))
    server = await _of_server(contract, config, policy, timeout, any(one.verdict == BROKEN for one in files))
    return [*found, *files, *server]


def _limits(config: IpcConfig) -> str:
    return f"max_frame_bytes {config.max_frame_bytes}, transport {config.transport}"


async def _of_server(
    contract: Contract[Any, Any],
    config: IpcConfig,
    policy: PeerPolicy,
    timeout: float,  # noqa: ASYNC109 - one response's
    explained: bool,
) -> list[Finding]:
    look = await looking.look_at(config, policy)
    if look.state != "alive" or look.server is None:
        if explained and look.state in _OF_FILES:
            return []
        return [Finding("server", BROKEN, f"nobody can be reached: {look.why}", look.advice or "")]
    who = ", ".join(
        f"{key} {look.server[key]}"
        for key in ("pid", "uid", "sid", "program")
        if look.server[key] is not None  # root is uid 0
    )
    if look.server["runs"] is False:
        seen = f"process {look.server['pid']}, which listened, has ended, and another one has its socket"
        advice = "if no service manager passed it on: find the process by 'ss -xlp', and stop it"
        found = [Finding("server", WARNING, seen, advice)]
    else:
        found = [Finding("server", GOOD, f"somebody listens: {who}")]
    if not look.trusted:
        seen = f"a client refuses this server ({who}): allowed is {policy}"
        advice = "somebody else took the path, or the policy is too narrow: see 'trio-ipc doctor --help'"
        return [*found, Finding("trust", BROKEN, seen, advice)]
    found.append(Finding("trust", GOOD, f"a client trusts it: allowed is {policy}"))
    return [*found, *await _of_answer(contract, config, policy, timeout)]


async def _of_answer(
    contract: Contract[Any, Any],
    config: IpcConfig,
    policy: PeerPolicy,
    timeout: float,  # noqa: ASYNC109 - one response's
) -> list[Finding]:
    answer = await looking.ask(contract, config, policy, timeout)
    if answer is None:
        return [Finding("answer", GOOD, looking.not_asked(contract))]
    if answer.variant is None:
        advice = "see the server's log; another contract or protocol, a full or a hanging server look so"
        return [Finding("answer", BROKEN, f"it does not answer: {answer.why}", advice)]
    if config.crc32_variant not in {AUTO, answer.variant}:
        seen = f"the server speaks {answer.variant}, and crc32_variant is {config.crc32_variant} here"
        return [Finding("answer", BROKEN, seen, "set crc32_variant to the same on both sides, or to auto")]
    found = [Finding("answer", GOOD, f"it answers, in the {answer.variant} variant")]
    try:
        is_well = contract.health is None or contract.says_well(answer.response)
    except ContractError as exc:
        return [*found, Finding.of_error("answer", exc)]
    if not is_well:
        seen = "it answers, and not that it is well"
        found = [Finding("answer", BROKEN, seen, "see its log, or its response by 'trio-ipc info'")]
    return found
