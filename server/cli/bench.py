"""``jetstore bench``: the rows of docs/benchmarks.md on this machine, nats-server beside it when it is on PATH."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import click

from server.bench.measure import QUICK, Sizes
from server.bench.report import cells, details, table
from server.bench.run import ROWS, machine, run, servers_here
from server.bench.slow_disk import CannotMount, slow_disk


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_table(headings: list[str], rows: list[list[str]]) -> None:
    """With rich on a terminal, else as Markdown."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            pass
        else:
            pretty = Table(*headings)
            for row in rows:
                pretty.add_row(*row)
            Console().print(pretty)
            return
    print(table(headings, rows))


@click.command("bench", help=__doc__)
@click.option("--rows", default=",".join(ROWS), show_default=True, help="Rows to run, by name.")
@click.option("--server", "servers", multiple=True, help="jetstore, nats-server, nats-server-always or a command line.")
@click.option("--repeat", default=5, show_default=True, help="Measurements per row and server; medians are printed.")
@click.option("--quick", is_flag=True, help="Small sizes and one measurement: minutes instead of an hour.")
@click.option("--long", "is_long", is_flag=True, help="Restart with 10 M messages on 1 M subjects, memory up to 10 M.")
@click.option("--seconds", type=float, help="Length of one publishing measurement.")
@click.option("--streams", type=click.IntRange(1), help="How many streams the row of many streams has (1,000).")
@click.option("--folder", type=click.Path(path_type=Path), help="Where stores are put; the disk that is measured.")
@click.option(
    "--sync-ms", type=click.FloatRange(0), help="Put stores on a FUSE disk where each sync takes so long (needs root)."
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all figures to this file.")
def bench(
    rows: str,
    servers: tuple[str, ...],
    repeat: int,
    quick: bool,
    is_long: bool,
    seconds: float | None,
    streams: int | None,
    folder: Path | None,
    sync_ms: float | None,
    json_path: Path | None,
) -> None:
    names = [name.strip() for name in rows.split(",") if name.strip()]
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise click.BadParameter(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}", param_hint="--rows")
    sizes = QUICK if quick else Sizes()
    if is_long:
        sizes = replace(sizes, restart_messages=10_000_000, restart_subjects=1_000_000, memory_messages=10_000_000)
    if seconds is not None:
        sizes = replace(sizes, seconds=seconds)
    if streams is not None:
        sizes = replace(sizes, streams=streams)
    if quick and click.get_current_context().get_parameter_source("repeat") == click.core.ParameterSource.DEFAULT:
        repeat = 1
    chosen = list(servers) or servers_here()
    _say(f"{machine()}")
    try:
        with slow_disk(sync_ms, _say, folder) if sync_ms is not None else nullcontext(folder) as place:
            results = run(names, chosen, sizes, repeat, _say, place)
    except CannotMount as reason:
        raise click.UsageError(f"--sync-ms: {reason}") from None
    headings, lines = cells(results, chosen)
    _print_table(headings, lines)
    print(details(results, chosen[0]))
    if json_path is not None:
        document = {
            "machine": machine(),
            "command": sys.argv,
            "repeat": repeat,
            "results": [result.as_json(chosen[0]) for result in results],
        }
        json_path.write_text(json.dumps(document, indent=2) + "\n")
    failed = [result.row.name for result in results if chosen[0] not in result.outcomes]
    if failed:
        _say(f"no figure of {chosen[0]} for: {', '.join(failed)}")
        sys.exit(1)
