"""``python -m jepsen sim``: many seeds with a progress line and a summary, or one seed with its whole story."""

from __future__ import annotations

import argparse
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from jepsen.nemesis.schedule import BY_NAME
from jepsen.sim.plan import WORKLOADS
from jepsen.sim.points import Death, Passed, enumerate_points, run_to
from jepsen.sim.report import Totals, clear, merged_story, progress, quiet
from jepsen.sim.run import Report, draw_nodes, run_seed
from jepsen.sim.scenarios import SCENARIOS, play_scenario
from jepsen.sim.server import REPLICATES
from jepsen.sim.shrink import shrink
from jepsen.sim.speed import measure

__all__ = ["add_to", "quiet", "replay_command", "run"]

SHOWN_PROBLEMS = 5
FLAGS = ("--no-faults", "--damage", "--no-damage", "--small", "--compressed", "--encrypted")


def add_to(commands: Any) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("sim", help="whole servers in virtual time; one seed is one run, bit for bit")
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="how many seeds (default 100)")
    parser.add_argument("--base", type=int, default=None, metavar="B", help="first seed (default: drawn and printed)")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="seeds at a time, in processes of their own")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="run this one seed and tell its story")
    parser.add_argument("--history", action="store_true", help="with --seed: every operation, among the faults")
    parser.add_argument("--log", action="store_true", help="with --seed: print the server's log")
    parser.add_argument(
        "--shrink", action="store_true", help="with --seed: the fewest faults with which it still fails"
    )
    parser.add_argument("--only", type=_numbers, default=None, metavar="I,J", help="with --seed: just these events")
    parser.add_argument("--publishes", type=int, default=None, metavar="N", help="at most N publishes per stream")
    parser.add_argument("--scenario", action="append", default=[], choices=[*sorted(SCENARIOS), "all"], help="play it")
    parser.add_argument(
        "--points", type=int, default=0, metavar="STEP", help="with --seed: die at each STEP-th point of each machine"
    )
    parser.add_argument("--die", default="", metavar="M,P,HOW", help="with --seed: just this death of --points")
    parser.add_argument("--speed", action="store_true", help="measure the simulator itself, with 1, 3 and 5 nodes")
    parser.add_argument("--matrix", action="store_true", help="which fault met which transition, how often")
    parser.add_argument("--nodes", type=int, default=None, choices=(1, 3, 5), help="machines (default: the seed says)")
    parser.add_argument("--workload", action="append", default=[], choices=sorted(WORKLOADS), help="only these")
    parser.add_argument("--fault", action="append", default=[], choices=sorted(BY_NAME), help="only these kinds")
    parser.add_argument("--no-faults", action="store_true", help="no faults while running")
    damage = parser.add_mutually_exclusive_group()
    damage.add_argument("--damage", action="store_true", help="always damage stored bytes before the last start")
    damage.add_argument("--no-damage", action="store_true", help="never do")
    parser.add_argument("--compressed", action="store_true", help="streams are stored compressed, whatever the seed")
    parser.add_argument("--encrypted", action="store_true", help="stores are encrypted, whatever the seed")
    parser.add_argument("--small", action="store_true", help="short runs, as the test suite has them")
    parser.add_argument(
        "--safety-decides",
        action="store_true",
        help="a seed that was only too slow, or broke the harness, is told: exit 0",
    )
    parser.add_argument("--stop", action="store_true", help="stop at the first failing seed")
    parser.set_defaults(run=run)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


def run(options: argparse.Namespace) -> int:
    """0 = every seed passed (or, if so asked, none failed in safety), 1 = some failed."""
    if options.speed:
        quiet()
        for nodes in (1, 3, 5):
            print(measure(nodes), flush=True)
        return 0
    if options.scenario:
        return _play(options)
    if options.points or options.die:
        return _points(options)
    if options.seed is not None:
        return _shrink(options) if options.shrink else _tell(options)
    quiet()
    base = options.base if options.base is not None else random.SystemRandom().randrange(10**9)
    print(f"seeds {base} … {base + options.seeds - 1}")
    totals = Totals()
    for number, report in enumerate(_reports(options, base)):
        totals.add(report)
        if report.problems:
            clear()
            _show_failure(report, options)
            if options.stop:
                break
        progress(number + 1, options.seeds, totals)
    clear()
    totals.summary(matrix=options.matrix)
    return int(any(report.is_unsafe or not options.safety_decides for report in totals.failed))


def _reports(options: argparse.Namespace, base: int) -> Iterator[Report]:
    """Of all seeds, in their order."""
    seeds = range(base, base + options.seeds)
    if options.jobs <= 1:
        yield from (run_seed(seed, **_narrowed(options, seed)) for seed in seeds)
        return
    with multiprocessing.get_context("fork").Pool(options.jobs, maxtasksperchild=50) as pool:
        yield from pool.imap(partial(_run_elsewhere, options), seeds)


def _run_elsewhere(options: argparse.Namespace, seed: int) -> Report:
    started = time.process_time()
    report = run_seed(seed, **_narrowed(options, seed))
    report.history = None  # large, and bound to the world that is gone
    report.cpu_s = time.process_time() - started
    return report


def _narrowed(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    faults = frozenset(options.fault) if options.fault else frozenset() if options.no_faults else None
    damaged = True if options.damage else False if options.no_damage else None
    nodes = options.nodes or (draw_nodes(seed) if REPLICATES else 1)
    return {
        "nodes": nodes,
        "workloads": tuple(sorted(set(options.workload))),
        "faults": faults,
        "damaged": damaged,
        "is_small": options.small,
        "only": options.only,
        "publishes_max": options.publishes,
        "compressed": options.compressed or None,
        "encrypted": options.encrypted or None,
    }


def replay_command(seed: int, options: argparse.Namespace | None = None) -> str:
    """The one command that repeats a run."""
    words = ["python -m jepsen sim", f"--seed {seed}"]
    if options is not None:
        words += [f"--nodes {options.nodes}"] * (options.nodes is not None)
        words += [f"--workload {name}" for name in options.workload]
        words += [f"--fault {name}" for name in options.fault]
        words += [flag for flag in FLAGS if vars(options)[flag[2:].replace("-", "_")]]
        words += [f"--only {','.join(map(str, options.only or ()))}"] * (options.only is not None)
        words += [f"--publishes {options.publishes}"] * (options.publishes is not None)
    return " ".join(words)


def _show_failure(report: Report, options: argparse.Namespace) -> None:
    where = f"{report.nodes} nodes; {', '.join(report.workloads)}"
    print(f"seed {report.seed} failed ({where}; {len(report.problems)} problems)")
    for problem in report.problems[:SHOWN_PROBLEMS]:
        print(f"    {problem[:400]}")
    print(f"    replay: {replay_command(report.seed, options)}", flush=True)


def _tell(options: argparse.Namespace) -> int:
    if not options.log:
        quiet()
    report = run_seed(options.seed, **_narrowed(options, options.seed))
    return _told(report, options)


def _told(report: Report, options: argparse.Namespace) -> int:
    for line in merged_story(report, with_history=options.history):
        print(line)
    totals = Totals()
    totals.add(report)
    totals.summary(matrix=options.matrix)
    print(
        f"{report.nodes} nodes; workloads {', '.join(report.workloads)}; {report.virtual_s:.1f} virtual seconds; "
        f"{report.boots} starts"
    )
    print(f"trace {report.trace_hash}")
    for problem in report.problems:
        print(f"PROBLEM {problem}")
    return 1 if report.problems else 0


def _shrink(options: argparse.Namespace) -> int:
    quiet()
    started = time.monotonic()
    shrunk = shrink(options.seed, lambda told: print(told, flush=True), **_narrowed(options, options.seed))
    if shrunk is None:
        print("passed: there is nothing to shrink")
        return 0
    report = shrunk.report
    print(
        f"{report.events} events, {len(shrunk.events)} of them needed; "
        f"{shrunk.runs} runs in {time.monotonic() - started:.1f} s"
    )
    options.only = tuple(shrunk.events)
    options.workload = list(report.workloads)
    options.publishes = shrunk.options.get("publishes_max")
    options.history = options.history or report.operations <= 200
    _told(report, options)
    print(f"replay: {replay_command(options.seed, options)}")
    return 1


def _points(options: argparse.Namespace) -> int:
    """Deaths at named points, one run each; the names that were met, how often."""
    quiet()
    seed = options.seed if options.seed is not None else 1
    if options.die:
        machine, at, how = options.die.split(",")
        return _told(run_to(seed, Death(int(machine), int(at), how)).report, options)
    met: Counter[str] = Counter()

    def on_run(death: Death, passed: Passed) -> None:
        met[passed.died_at or "nowhere"] += 1
        if passed.report.problems:
            print(f"n{death.machine + 1} died {passed.died_at} (point {death.at}, {death.how})")
            for problem in passed.report.problems[:SHOWN_PROBLEMS]:
                print(f"    {problem[:400]}")
            print(f"    replay: python -m jepsen sim --seed {seed} --die {','.join(map(str, death))}", flush=True)

    failed = enumerate_points(seed, step=options.points or 1, on_run=on_run)
    for name, count in sorted(met.items()):
        print(f"{count:>6} {name}")
    print(f"{sum(met.values())} deaths, {len(failed)} FAILED" if failed else f"{sum(met.values())} deaths: passed")
    return 1 if failed else 0


def _play(options: argparse.Namespace) -> int:
    """Named scenarios, each with some seeds; a skipped one says why."""
    quiet()
    names = sorted(SCENARIOS) if "all" in options.scenario else options.scenario
    base = options.base if options.base is not None else 1
    seeds = range(options.seed, options.seed + 1) if options.seed is not None else range(base, base + options.seeds)
    failed = 0
    for name in names:
        for seed in seeds:
            outcome = play_scenario(SCENARIOS[name], seed)
            if outcome.skipped:
                print(f"{name}: SKIPPED, {outcome.skipped}")
                break
            if outcome.problems:
                failed += 1
                print(f"{name} FAILED with seed {seed}; replay: python -m jepsen sim --scenario {name} --seed {seed}")
                for line in (*outcome.story, *outcome.problems[:SHOWN_PROBLEMS]):
                    print(f"    {line[:400]}")
        else:
            print(f"{name}: {len(seeds)} seeds")
    print(f"{failed} FAILED" if failed else "passed")
    return 1 if failed else 0
