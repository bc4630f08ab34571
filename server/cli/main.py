"""The ``jetstore`` command group. Subcommands are imported only when they are used."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final, cast

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


def import_structlog() -> None:
    """structlog, without ``rich``: it loads that where it is installed, for a coloured console output that is not used.

    ``rich`` itself stays importable afterwards (the benchmark's tables use it).
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    modules = cast("dict[str, Any]", sys.modules)  # Any: None is how Python marks a module that is not to be found
    modules["rich"] = None
    try:
        import_module("structlog")
    finally:
        del modules["rich"]


class LazyGroup(click.Group):
    """A group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        if cmd_name == "serve":
            import_structlog()
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A NATS server with JetStream that never loses what it acknowledged."""


if __name__ == "__main__":
    main()
