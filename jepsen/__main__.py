"""``python -m jepsen sim`` (virtual time: seeds, or one replayed) and ``python -m jepsen real`` (real processes)."""

from __future__ import annotations

import argparse
import sys

from jepsen.real import cli as real_command
from jepsen.sim import command as sim_command


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 = every seed passed."""
    parser = argparse.ArgumentParser(prog="python -m jepsen", description="Tests of whole servers under faults.")
    commands = parser.add_subparsers(dest="command", required=True)
    sim_command.add_to(commands)
    real_command.add_to(commands)
    options = parser.parse_args(arguments)
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
