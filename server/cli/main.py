"""The ``jetstore`` command group. Subcommands are imported only when they are used."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final

import click

from server.loading import import_structlog, loading

COMMANDS: Final = {
    "bench": "server.cli.bench:bench",
    "inspect": "server.cli.store_tools:inspect",
    "recover": "server.cli.store_tools:recover_command",
    "serve": "server.cli.serve:serve",
    "verify": "server.cli.store_tools:verify_command",
    "version": "server.cli.version:version",
}
"""Subcommand → module:attribute of its click command."""


def without_pydantic_plugins() -> None:
    """Keep pydantic from searching every installed distribution for plugins; such would also see all that it reads."""
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"


def load(path: str) -> Any:  # Any: what the module has there
    """The attribute that ``module:attribute`` names."""
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


class LazyGroup(click.Group):
    """A group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        if cmd_name == "serve":
            without_pydantic_plugins()
            with loading():
                import_structlog()
                command = load(COMMANDS[cmd_name])
        else:
            command = load(COMMANDS[cmd_name])
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A NATS server with JetStream that never loses what it acknowledged."""


if __name__ == "__main__":
    main()
