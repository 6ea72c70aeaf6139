"""``trio-ipc serve MODULE:HANDLER [ENDPOINT]``: a server around a handler, without a program."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from trio_ipc.cli import arguments
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import PROGRAM, Command

if TYPE_CHECKING:
    from trio_ipc import Contract, IpcConfig


class HandlerName(click.ParamType[Any]):
    """``MODULE:NAME`` of a handler; modules of the working directory are found, too."""

    name = "handler"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Import the module and return the handler."""
        return arguments.imported(value, self, param, ctx)


@click.command(cls=Command)
@click.argument("handler", type=HandlerName(), metavar="MODULE:HANDLER")
@click.argument("endpoint", type=arguments.ENDPOINT, required=False)
@click.option(
    "--log-style",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How lines on standard error look.",
)
@click.option(
    "--snapshot-file",
    type=click.Path(),
    metavar="FILE",
    help="Write counters there as JSON, at SIGUSR1 and in the end.",
)
@click.option(
    "--snapshot-interval",
    type=arguments.SECONDS,
    metavar="SECONDS",
    help="Write them this often as well, for 'trio-ipc top FILE'.",
)
@click.option(
    "--metrics-file",
    type=click.Path(),
    metavar="FILE.prom",
    help="Write counters there every 15 s, in Prometheus' text format. Needs the extra 'prometheus'.",
)
@arguments.contract_option
@arguments.config_option
def command(
    handler: Any,
    endpoint: str | None,
    contract: Contract[Any, Any],
    config_file: str | None,
    *,
    log_style: str,
    snapshot_file: str | None,
    snapshot_interval: float | None,
    metrics_file: str | None,
) -> int:
    """Serve at ENDPOINT with a handler: an async function of a request and a Call, which returns a response.

    Without ENDPOINT it is the endpoint_path of the settings. 'listening on ENDPOINT' on standard output says
    that clients can connect. SIGTERM and Ctrl-C stop it gracefully, and the second time at once; SIGHUP has
    it read its settings again; SIGUSR1 has it tell what it has done. It may be started by systemd, also with
    a socket. A program of yours does the same by run_service().

    With this as app.py, 'trio-ipc call' gets a response from what the example starts:

    \b
      from trio_ipc.daemoneye import DetectionResult
      async def handle(task, call):
          return DetectionResult(task_id=task.task_id, success=True)

    \b
      trio-ipc serve app:handle ./s.sock
      trio-ipc call ./s.sock '{"task_id": "1"}'

    The exit status is 0 after it was asked to stop, 2 for a wrong setting, and 3 where it cannot listen.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc import ExitStatus, run_service  # noqa: PLC0415 - not for completion

    try:
        status = run_service(
            handler,
            contract,
            partial(_settings, endpoint, config_file),
            name=f"{PROGRAM} serve",
            log_style=log_style,
            snapshot_file=snapshot_file,
            snapshot_interval=snapshot_interval,
            metrics_file=metrics_file,
        )
    except TypeError as exc:
        raise click.BadParameter(str(exc), click.get_current_context(), param_hint="MODULE:HANDLER") from exc
    return {
        ExitStatus.OK: Status.DONE,
        ExitStatus.CONFIG: Status.USAGE,
        ExitStatus.IN_USE: Status.UNREACHABLE,
        ExitStatus.ENDPOINT: Status.UNREACHABLE,
        ExitStatus.UNSAFE: Status.UNREACHABLE,
        ExitStatus.OUTPUT: Status.OUTPUT,
    }.get(status, Status.FAILED)


def _settings(endpoint: str | None, config_file: str | None) -> IpcConfig:
    from trio_ipc import IpcConfig  # noqa: PLC0415

    if endpoint is not None:
        return arguments.settings(endpoint, config_file)
    return IpcConfig.load(config_file, defaults={"crc32_variant": "auto"})
