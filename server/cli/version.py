"""``jetstore version``."""

from __future__ import annotations

import click

from jetstore import __version__
from jetstore.model.levels import NATS_VERSION


def version_text() -> str:
    """One line: our version and the NATS surface it follows."""
    return f"jetstore: v{__version__} (NATS surface of nats-server v{NATS_VERSION})"


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(version_text())
