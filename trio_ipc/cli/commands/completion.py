"""``trio-ipc completion SHELL``: what a shell needs to complete the command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from trio_ipc.cli import output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import COMPLETION_VARIABLE, PROGRAM, Command


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Print what makes a shell complete this command, its options and the paths of endpoints.

    \b
      bash:  eval "$(trio-ipc completion bash)"      in ~/.bashrc (bash 4.4 or later)
      zsh:   eval "$(trio-ipc completion zsh)"       in ~/.zshrc
      fish:  trio-ipc completion fish > ~/.config/fish/completions/trio-ipc.fish
    """  # noqa: D301 - click's mark for lines that stay as they are
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"{shell} has no completion", context)
    output.write(kind(context.find_root().command, {}, PROGRAM, COMPLETION_VARIABLE).source())
    return Status.DONE
