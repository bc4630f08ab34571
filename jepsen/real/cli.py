"""Command line of the real-process tests: ``python -m jepsen real kill|power|flip``. Exit code 1 = violations."""

from __future__ import annotations

import argparse
import secrets
import statistics
from collections.abc import Sequence

from . import kill
from .ledger import CONSUMER_KINDS
from .process import JETSTORE


def say(text: str) -> None:
    """Print at once: a long run is watched."""
    print(text, flush=True)


def _tolerated(arguments: argparse.Namespace) -> frozenset[str]:
    return CONSUMER_KINDS if arguments.tolerate == "consumer" else frozenset()


def _kill(arguments: argparse.Namespace) -> int:
    result = kill.run(
        arguments.server, arguments.rounds, arguments.seed, say, keep=arguments.keep, tolerated=_tolerated(arguments)
    )
    starts = sorted(result.starts_s)
    say(
        f"{arguments.server}: {result.rounds} rounds, {result.acked:,} acknowledged, "
        f"{result.confirmed:,} confirmed consumer acks, restart median {statistics.median(starts) * 1000:.0f} ms, "
        f"most {starts[-1] * 1000:.0f} ms; violations: {result.findings}"
    )
    return 1 if result.findings.total or result.rounds < arguments.rounds else 0


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m jepsen real", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--server", default=JETSTORE, help="jetstore, nats-server, nats-server-always or a command line"
    )
    shared.add_argument("--seed", type=int, default=None, help="of the moments and choices; random when absent")
    shared.add_argument("--keep", action="store_true", help="keep the store")
    shared.add_argument(
        "--tolerate", choices=["consumer"], help="count, but go on: consumers' ack floors that went back"
    )
    command = commands.add_parser("kill", parents=[shared], help=kill.__doc__)
    command.add_argument("--rounds", type=int, default=200)
    command.set_defaults(run=_kill)
    arguments = parser.parse_args(argv)
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(2**31)
    say(f"seed {arguments.seed}")
    code: int = arguments.run(arguments)
    return code
