"""Looking for the defects of ``mutations.py``: golden scripts, tests, seeds of the random cluster.

``python tests/raft/mutation_hunt.py [name …]`` prints the tables of docs/testing.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import raft_checks
from cluster import Cluster
from mutations import MUTATIONS, Mutation, applied
from raft_checks import Violation
from raft_script import run_script

GOLDEN = Path(__file__).parent.parent / "golden" / "raft"
SEEDS_MAX = 150


@dataclass(frozen=True, slots=True)
class Found:
    """Where a defect showed itself."""

    seeds: int
    """Seeds of the cluster until then; 0 = the cluster was not asked."""
    rule: str
    """The invariant; ``core``: an assertion of the core; "": not asked."""
    scripts: tuple[str, ...]
    """Golden scripts that differ, of those that were expected to."""


def hunt(mutation: Mutation, *, asks_cluster: bool = True) -> Found:
    """Run the scripts that should show it, then seeds of the cluster until one of the expected rules is broken."""
    with applied(mutation):
        different = tuple(name for name in mutation.scripts if _differs(name))
        if not mutation.rules or not asks_cluster:
            return Found(0, "", different)
        for seed in range(SEEDS_MAX):
            try:
                Cluster(seed).run()
            except Violation as violation:
                if violation.rule in mutation.rules:
                    return Found(seed + 1, violation.rule, different)
            except Exception:  # noqa: BLE001 – an assertion of the core, or whatever follows from broken state
                if "core" in mutation.rules:
                    return Found(seed + 1, "core", different)
    return Found(SEEDS_MAX + 1, "not found", different)


def hunt_by_one_rule(rule: str) -> tuple[str, int]:
    """The defect that stands for an invariant, and how many seeds it takes when nothing but that one is looked at."""
    mutation = next(m for m in MUTATIONS if m.name == SHOWS[rule])
    raft_checks.ONLY.add(rule)
    try:
        with applied(mutation):
            for seed in range(SEEDS_MAX):
                try:
                    Cluster(seed).run()
                except Violation:
                    return mutation.name, seed + 1
                except Exception:  # noqa: BLE001 – the core, or the books, stumbled first: not what is asked here
                    continue
    finally:
        raft_checks.ONLY.clear()
    return mutation.name, SEEDS_MAX + 1


SHOWS = {
    "R1": "a second candidate of a term gets a vote, too",
    "R2": "an append is taken whatever stands before it",
    "R3": "a vote for a log that ends earlier",
    "R4": "one acknowledgement is enough",
    "R5": "an entry of an older term is committed by counting",
    "R6": "a restart forgets the vote",
    "R7": "a vote for a log that ends earlier",
    "R8": "a configuration counts only when it is committed",
    "R9": "copies of learners count",
    "R10": "entries are acknowledged before they are durable",
    "R11": "recovery cuts the log at the first unreadable entry",
    "READ": "a read needs no round",
}
"""Invariant → a defect that breaks it."""


def _differs(name: str) -> bool:
    if "." in name:
        module, _, function = name.partition(".")
        try:
            getattr(import_module(module), function)()
        except Exception:  # noqa: BLE001 – as below
            return True
        return False
    text = (GOLDEN / f"{name}.txt").read_text()
    try:
        return run_script(text) != text
    except Exception:  # noqa: BLE001 – whatever it raises, it is not what the script expects
        return True


def table(mutations: list[Mutation], note: Callable[[str], None] = print) -> None:
    """The table of docs/testing.md."""
    note("| defect | seeds of the cluster until found | by | golden scripts and tests that show it |")
    note("|---|---|---|---|")
    for mutation in mutations:
        found = hunt(mutation)
        seeds = str(found.seeds) if found.rule else "–"
        scripts = ", ".join(f"`{name}`" for name in found.scripts) or "–"
        missing = set(mutation.scripts) - set(found.scripts)
        note(
            f"| {mutation.name} | {seeds} | {found.rule or '–'} | {scripts} |"
            + (f" MISSING {missing}" if missing else "")
        )


def rules_table(note: Callable[[str], None] = print) -> None:
    """The second table: each invariant, taken alone."""
    note("| invariant, looked at alone | defect | seeds until found |")
    note("|---|---|---|")
    for rule in SHOWS:
        name, seeds = hunt_by_one_rule(rule)
        note(f"| {rule} | {name} | {seeds if seeds <= SEEDS_MAX else 'not found'} |")


if __name__ == "__main__":
    wanted = sys.argv[1:]
    if not wanted:
        rules_table()
    table([m for m in MUTATIONS if not wanted or any(word in m.name for word in wanted)])
