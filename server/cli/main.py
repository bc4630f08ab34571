"""The ``jetstore`` command group. Subcommands are imported only when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

COMMANDS: Final = {
    "bench": "server.cli.bench:bench",
    "inspect": "server.cli.store_tools:inspect",
    "recover": "server.cli.store_tools:recover_command",
    "serve": "server.cli.serve:serve",
    "verify": "server.cli.store_tools:verify_command",
    "version": "server.cli.version:version",
}
"""Subcommand → module:attribute of its click command."""


class LazyGroup(click.Group):
    """A group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A NATS server with JetStream that never loses what it acknowledged."""


if __name__ == "__main__":
    main()
