"""Runs rows: each repetition goes through all servers before the next begins; so they share good and bad moments."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jepsen.real.control import ControlError
from jepsen.real.load import LoadError, LoadProcess
from jepsen.real.process import JETSTORE, NATS_SERVER, NATS_SERVER_ALWAYS, ServerError, find_nats_server

from . import lifetime, publishing, reading, replicated
from .measure import Bench, Outcome, Row, Sizes, Unavailable
from .report import RowResult, number

ROWS: dict[str, Row] = {row.name: row for row in [*publishing.ROWS, *reading.ROWS, *lifetime.ROWS, *replicated.ROWS]}


def servers_here() -> list[str]:
    """jetstore, and nats-server in both sync modes when a binary is on PATH."""
    return [JETSTORE, *([NATS_SERVER, NATS_SERVER_ALWAYS] if find_nats_server() else [])]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    binary = find_nats_server()
    version = ""
    if binary:
        version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "nats_server": version,
    }


def run(
    rows: Sequence[str],
    servers: Sequence[str],
    sizes: Sizes,
    repeat: int,
    say: Callable[[str], None],
    folder: Path | None = None,
) -> list[RowResult]:
    """Measure rows on servers. A row that fails on a server is reported as absent there, with the reason."""
    base = Path(tempfile.mkdtemp(prefix="jetstore-bench-", dir=folder))
    loads: list[LoadProcess] = []
    results = []
    try:
        for name in rows:
            result = RowResult(ROWS[name])
            results.append(result)
            for repetition in range(repeat):
                for server in servers:
                    _one(result, server, sizes, base, loads, f"{name} {repetition + 1}/{repeat} {server}", say)
        return results
    finally:
        for load in loads:
            load.close()
        shutil.rmtree(base, ignore_errors=True)


def _one(
    result: RowResult,
    server: str,
    sizes: Sizes,
    folder: Path,
    loads: list[LoadProcess],
    label: str,
    say: Callable[[str], None],
) -> None:
    if server in result.absent:
        return
    if server == NATS_SERVER_ALWAYS and not result.row.syncs:
        result.absent[server] = "the sync mode does not matter here"
        return
    bench = Bench(server, sizes, folder, loads)
    try:
        outcome: Outcome = result.row.measure(bench)
    except Unavailable as reason:
        result.absent[server] = str(reason)
        say(f"{label}: {reason}")
    except (ServerError, ControlError, LoadError, RuntimeError, OSError) as error:
        result.absent[server] = f"{type(error).__name__}: {error}"
        say(f"{label}: {error}")
        # A load process may still be inside a job of this server.
        for load in loads:
            load.close()
        loads.clear()
    else:
        result.outcomes.setdefault(server, []).append(outcome)
        say(f"{label}: {number(outcome.value)} {result.row.unit}")
    finally:
        bench.close()
