"""``python -m jepsen sim``: many seeds with a progress line and a summary, or one seed with its whole story."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from collections import Counter
from typing import Any

import structlog

from jepsen.nemesis.schedule import BY_NAME
from jepsen.sim.plan import WORKLOADS
from jepsen.sim.run import Report, run_seed

BAR_CELLS = 30
SHOWN_PROBLEMS = 5
FLAGS = ("--no-faults", "--damage", "--no-damage", "--small")


def add_to(commands: Any) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("sim", help="whole servers in virtual time; one seed is one run, bit for bit")
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="how many seeds (default 100)")
    parser.add_argument("--base", type=int, default=None, metavar="B", help="first seed (default: drawn and printed)")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="run this one seed and tell its story")
    parser.add_argument("--history", action="store_true", help="with --seed: print every operation")
    parser.add_argument("--log", action="store_true", help="with --seed: print the server's log")
    parser.add_argument("--nodes", type=int, default=None, choices=(1, 3, 5), help="machines (default: the seed says)")
    parser.add_argument("--workload", action="append", default=[], choices=sorted(WORKLOADS), help="only these")
    parser.add_argument("--fault", action="append", default=[], choices=sorted(BY_NAME), help="only these kinds")
    parser.add_argument("--no-faults", action="store_true", help="no faults while running")
    damage = parser.add_mutually_exclusive_group()
    damage.add_argument("--damage", action="store_true", help="always damage stored bytes before the last start")
    damage.add_argument("--no-damage", action="store_true", help="never do")
    parser.add_argument("--small", action="store_true", help="short runs, as the test suite has them")
    parser.add_argument("--stop", action="store_true", help="stop at the first failing seed")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 = every seed passed, 1 = some failed."""
    if options.seed is not None:
        return _tell(options)
    quiet()
    base = options.base if options.base is not None else random.SystemRandom().randrange(10**9)
    print(f"seeds {base} … {base + options.seeds - 1}")
    started = time.monotonic()
    failed: list[Report] = []
    totals: Counter[str] = Counter()
    strikes: Counter[str] = Counter()
    for number in range(options.seeds):
        report = run_seed(base + number, **_narrowed(options))
        _add(totals, strikes, report)
        if report.problems:
            failed.append(report)
            _clear()
            _show_failure(report, options)
            if options.stop:
                break
        _progress(number + 1, options.seeds, len(failed), totals["operations"] / (time.monotonic() - started))
    _clear()
    _summary(totals, strikes, failed, time.monotonic() - started)
    return 1 if failed else 0


def quiet() -> None:
    """No server logs: thousands of servers die here on purpose."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.ReturnLoggerFactory(),
    )


def _narrowed(options: argparse.Namespace) -> dict[str, Any]:
    faults = frozenset(options.fault) if options.fault else frozenset() if options.no_faults else None
    damaged = True if options.damage else False if options.no_damage else None
    return {
        "workloads": tuple(sorted(set(options.workload))),
        "faults": faults,
        "damaged": damaged,
        "is_small": options.small,
    }


def replay_command(seed: int, options: argparse.Namespace | None = None) -> str:
    """The one command that repeats a run."""
    words = ["python -m jepsen sim", f"--seed {seed}"]
    if options is not None:
        words += [f"--workload {name}" for name in options.workload]
        words += [f"--fault {name}" for name in options.fault]
        words += [flag for flag in FLAGS if vars(options)[flag[2:].replace("-", "_")]]
    return " ".join(words)


def _show_failure(report: Report, options: argparse.Namespace) -> None:
    print(f"seed {report.seed} failed ({', '.join(report.workloads)}; {len(report.problems)} problems)")
    for problem in report.problems[:SHOWN_PROBLEMS]:
        print(f"    {problem[:400]}")
    print(f"    replay: {replay_command(report.seed, options)}", flush=True)


def _tell(options: argparse.Namespace) -> int:
    if not options.log:
        quiet()
    report = run_seed(options.seed, **_narrowed(options))
    if options.history and report.history is not None:
        for operation in report.history.operations:
            print(operation.line())
    for line in report.story:
        print(line)
    totals: Counter[str] = Counter()
    strikes: Counter[str] = Counter()
    _add(totals, strikes, report)
    _summary(totals, strikes, [report] if report.problems else [], 0.0)
    print(f"workloads {', '.join(report.workloads)}; {report.virtual_s:.1f} virtual seconds; {report.boots} starts")
    print(f"trace {report.trace_hash}")
    for problem in report.problems:
        print(f"PROBLEM {problem}")
    return 1 if report.problems else 0


def _add(totals: Counter[str], strikes: Counter[str], report: Report) -> None:
    totals["seeds"] += 1
    totals["operations"] += report.operations
    totals["acks"] += report.acks
    totals["unknown"] += report.unknown
    totals["starts"] += report.boots
    totals["damaged"] += len(report.damage)
    totals["lost"] += sum(problem.startswith("lost:") for problem in report.problems)
    totals["virtual"] += int(report.virtual_s)
    strikes.update(report.strikes)
    strikes.update({f"disk {name}": count for name, count in report.fault_counts.items()})
    strikes.update({f"end by {name}": count for name, count in report.deaths.items()})


def _summary(totals: Counter[str], strikes: Counter[str], failed: list[Report], seconds: float) -> None:
    print(
        f"{totals['seeds']} seeds, {totals['operations']} operations, {totals['acks']} publishes acknowledged, "
        f"{totals['unknown']} unknown, {totals['lost']} lost, {totals['starts']} starts, {totals['damaged']} damages, "
        f"{totals['virtual']} virtual s" + (f" in {seconds:.1f} s" if seconds else "")
    )
    if strikes:
        print("faults: " + ", ".join(f"{name} {count}" for name, count in sorted(strikes.items())))
    if failed:
        print(f"{len(failed)} FAILED: seeds {' '.join(str(report.seed) for report in failed)}")
    else:
        print("passed")


def _progress(done: int, total: int, failed: int, rate: float) -> None:
    if sys.stderr.isatty():
        cells = BAR_CELLS * done // total
        bar = "█" * cells + "·" * (BAR_CELLS - cells)
        sys.stderr.write(f"\r{bar} {done}/{total} seeds, {failed} failed, {rate:.0f} ops/s ")
        sys.stderr.flush()
    elif done % max(1, total // 10) == 0:
        print(f"{done}/{total} seeds, {failed} failed, {rate:.0f} ops/s", flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
