"""Goal: what is there to find defects of the Raft core does find them. Method: ``mutations.py``, one defect at a time.

Golden scripts and tests that should show a defect must show it. The random cluster is asked where nothing else is, and
everywhere with JETSTORE_DEEP, which prints the table of docs/testing.md with ``-s``.
"""

from __future__ import annotations

import pytest
from deep import IS_DEEP
from mutation_hunt import SEEDS_MAX, SHOWS, hunt, hunt_by_one_rule, rules_table, table
from mutations import MUTATIONS, Mutation, applied

SLOW = "test_ctrl_enumeration.test_all_4096_damage_patterns"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_defect_is_found(mutation: Mutation) -> None:
    assert mutation.rules or mutation.scripts
    if not IS_DEEP and SLOW in mutation.scripts:
        with applied(mutation):  # that it is not stale
            return
    found = hunt(mutation, asks_cluster=IS_DEEP or not mutation.scripts)
    assert found.scripts == mutation.scripts
    if mutation.rules and found.rule:
        assert found.seeds <= SEEDS_MAX, f"not found by the cluster: {found}"


@pytest.mark.parametrize("rule", SHOWS)
def test_every_invariant_finds_something_by_itself(rule: str) -> None:
    mutation = next(m for m in MUTATIONS if m.name == SHOWS[rule])
    assert rule in mutation.rules
    if IS_DEEP:
        _, seeds = hunt_by_one_rule(rule)
        assert seeds <= SEEDS_MAX


@pytest.mark.skipif(not IS_DEEP, reason="minutes; JETSTORE_DEEP=1")
def test_print_the_tables() -> None:
    rules_table()
    table(MUTATIONS)
