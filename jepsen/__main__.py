"""``python -m jepsen sim …`` (virtual time, one seed = one run) or ``python -m jepsen real …`` (real processes)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

EXECUTORS = ("sim", "real")


def main(argv: Sequence[str]) -> int:
    """Hand the rest of the command line to the executor's own ``cli.main``; its exit code."""
    if not argv or argv[0] not in EXECUTORS:
        print(f"usage: python -m jepsen {{{'|'.join(EXECUTORS)}}} …", file=sys.stderr)
        return 2
    executor = importlib.import_module(f"jepsen.{argv[0]}.cli")
    code: int = executor.main(argv[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
