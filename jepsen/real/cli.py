"""``python -m jepsen real kill|power|flip``: the real-process tests. Exit code 1 = violations, 77 = cannot run here."""

from __future__ import annotations

import argparse
import secrets
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import cluster_kill, flip, kill, power
from .disk_image import Names
from .fuse_layer import missing
from .ledger import CONSUMER_KINDS
from .process import JETSTORE
from .rounds import Result

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

SKIPPED = 77
"""Exit code of a test that cannot run here, as automake has it."""


def say(text: str) -> None:
    """Print at once: a long run is watched."""
    print(text, flush=True)


def _seeded(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The same command with a seed, which it says first."""

    def seeded(arguments: argparse.Namespace) -> int:
        if arguments.seed is None:
            arguments.seed = secrets.randbelow(2**31)
        say(f"seed {arguments.seed}")
        return run(arguments)

    return seeded


def _tolerated(arguments: argparse.Namespace) -> frozenset[str]:
    return CONSUMER_KINDS if arguments.tolerate == "consumer" else frozenset()


def _summary(arguments: argparse.Namespace, result: Result) -> int:
    starts = sorted(result.starts_s) or [0.0]
    say(
        f"{arguments.server}: {result.rounds} rounds, {result.acked:,} acknowledged, "
        f"{result.confirmed:,} confirmed consumer acks, restart median {statistics.median(starts) * 1000:.0f} ms, "
        f"most {starts[-1] * 1000:.0f} ms; violations: {result.findings}"
    )
    return 1 if result.findings.total or result.rounds < arguments.rounds else 0


def _cluster(arguments: argparse.Namespace, *, is_power: bool) -> int:
    """Rounds on several nodes."""
    variants = cluster_kill.VARIANTS
    if arguments.only:
        variants = {name: variants[name] for name in arguments.only.split(",")}
    result = cluster_kill.run(
        arguments.server,
        arguments.rounds,
        arguments.seed,
        say,
        nodes=arguments.nodes,
        variants=variants,
        power=is_power,
        names=Names(arguments.names) if is_power else Names.STRICT,
        tear=is_power and not arguments.no_tear,
        keep=arguments.keep,
        tolerated=_tolerated(arguments),
    )
    return _summary(arguments, result)


def _kill(arguments: argparse.Namespace) -> int:
    if arguments.nodes > 1:
        return _cluster(arguments, is_power=False)
    result = kill.run(
        arguments.server,
        arguments.rounds,
        arguments.seed,
        say,
        keep=arguments.keep,
        tolerated=_tolerated(arguments),
    )
    return _summary(arguments, result)


def _power(arguments: argparse.Namespace) -> int:
    reason = missing()
    if reason:
        say(f"SKIPPED: {reason}")
        return SKIPPED
    if arguments.nodes > 1:
        return _cluster(arguments, is_power=True)
    result = power.run(
        arguments.server,
        arguments.rounds,
        arguments.seed,
        say,
        names=Names(arguments.names),
        tear=not arguments.no_tear,
        stop_at_first=not arguments.go_on,
        keep=arguments.keep,
        tolerated=_tolerated(arguments),
    )
    return _summary(arguments, result)


def _flip(arguments: argparse.Namespace) -> int:
    findings, trials = flip.run(
        arguments.server,
        arguments.messages,
        arguments.seed,
        say,
        trials=arguments.trials,
        how=arguments.how,
        only=arguments.only,
        keep=arguments.keep,
    )
    say(f"{arguments.server}: {len(trials)} trials; violations: {findings}")
    return 1 if findings.total else 0


def add_to(executors: Subparsers) -> None:
    """Add ``real`` and its commands to the command line of ``python -m jepsen``."""
    parser = executors.add_parser(
        "real", help="kill -9, power cuts and flipped bits on real processes", description=__doc__
    )
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
    several = argparse.ArgumentParser(add_help=False)
    several.add_argument("--nodes", type=int, default=1, help="of one cluster; streams have up to three replicas")
    several.add_argument(
        "--only", default="", help=f"what may happen to a cluster: some of {', '.join(cluster_kill.VARIANTS)}"
    )
    command = commands.add_parser("kill", parents=[shared, several], help=kill.__doc__)
    command.add_argument("--rounds", type=int, default=200)
    command.set_defaults(run=_seeded(_kill))
    command = commands.add_parser("power", parents=[shared, several], help=power.__doc__)
    command.add_argument("--rounds", type=int, default=20)
    command.add_argument(
        "--names", choices=[each.value for each in Names], default="strict", help="when names of files are on the disk"
    )
    command.add_argument("--no-tear", action="store_true", help="every cut drops everything that was not synced")
    command.add_argument("--go-on", action="store_true", help="count what is lost, do not stop at the first loss")
    command.set_defaults(run=_seeded(_power))
    command = commands.add_parser("flip", parents=[shared], help=flip.__doc__)
    command.add_argument("--messages", type=int, default=100_000)
    command.add_argument("--trials", type=int, default=3, help="for each class of files")
    command.add_argument("--how", choices=["stop", "kill"], default="stop", help="how the original server ends")
    command.add_argument("--only", default="", help="one class of files")
    command.set_defaults(run=_seeded(_flip))
