"""``jetstore serve``: flags and file → options → a running server."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click
import structlog

from server.cli.flags import TLS_HELP, FlagError, Flags, UnknownFlag, apply_flags, parse_flags, usage
from server.cli.log import configure_logging
from server.cli.signals import SignalRefused, send_signal
from server.cli.version import version_text
from server.config.errors import ConfigError
from server.config.options import Options, start_problem
from server.config.reader import load_options
from server.loading import loading
from server.surroundings import Surroundings

PROGRAM = "jetstore"


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Run a server (flags as nats-server's; -h lists them).",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Run a server."""
    sys.exit(run_serve(arguments))


def run_serve(arguments: tuple[str, ...]) -> int:
    """The exit code: 0 after a graceful stop, help, version or an unknown flag (as nats-server); 1 for any error."""
    try:
        flags = parse_flags(arguments)
    except UnknownFlag as error:
        click.echo(f"{error}\n{usage()}", err=True)
        return 0
    except FlagError as error:
        click.echo(f"{PROGRAM}: {error}", err=True)
        return 1
    if (code := _answer_words(flags)) is not None:
        return code
    if flags.text("sl"):
        return _signal(flags.text("sl"))
    try:
        options = options_of(flags)
    except ConfigError as error:
        click.echo(f"{PROGRAM}: {error}", err=True)
        return 1
    if flags.is_set("t"):
        click.echo(f"{PROGRAM}: configuration file {options.config_file} is valid ({options.config_digest})", err=True)
        return 0
    problem = start_problem(options)
    if problem:
        click.echo(f"{PROGRAM}: {problem}", err=True)
        return 1
    return _start(options, flags)


def _answer_words(flags: Flags) -> int | None:
    """The exit code where no server is wanted; prints what is."""
    word = flags.words[0] if flags.words else ""
    if flags.is_set("h") or word == "help":
        click.echo(usage())
        return 0
    if flags.is_set("help_tls"):
        click.echo(TLS_HELP)
        return 0
    if flags.is_set("v") or word == "version":
        click.echo(version_text())
        return 0
    if word:
        click.echo(f'{PROGRAM}: unrecognized command: "{word}"', err=True)
        return 1
    if flags.is_set("t") and not flags.text("c"):
        click.echo(f"{PROGRAM}: must specify [-c, --config] option to check configuration file syntax", err=True)
        return 1
    return None


def _signal(command: str) -> int:
    try:
        send_signal(command)
    except SignalRefused as error:
        click.echo(f"{PROGRAM}: {error}", err=True)
        return 1
    return 0


def options_of(flags: Flags) -> Options:
    """The options of a command line: defaults, then the file, then the flags. ``ConfigError``."""
    options = Options()
    if flags.text("c"):
        options = load_options(Path(flags.text("c")), os.environ, is_test=flags.is_set("t"))
    return apply_flags(options, flags)


def write_pid(path: str) -> None:
    """The process's id goes to a file, without a newline. ``OSError``."""
    Path(path).write_text(str(os.getpid()), encoding="ascii")


def _start(options: Options, flags: Flags) -> int:
    # What is meant for a server that runs must not kill one that starts; its own handlers come with the event loop.
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)

    with loading():
        from server.run import run  # the server itself is only loaded when it is to run

    try:
        logging = configure_logging(options)
        if options.pid_file:
            write_pid(options.pid_file)
    except OSError as error:
        click.echo(f"{PROGRAM}: {error}", err=True)
        return 1
    log = structlog.get_logger("serve")
    for warning in options.warnings:
        log.warning(warning)
    around = Surroundings(
        load=lambda: options_of(flags), apply_log=logging.apply, reopen_log=logging.reopen, write_pid=write_pid
    )
    return run(options, around)
