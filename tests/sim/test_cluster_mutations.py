"""Goal: with several machines, too, the harness finds what it is there to find. Method as in ``test_mutations.py``: one
known defect in the node, then seeds until the right checker objects (or one story that only the defect lets happen)."""

# ruff: noqa: ASYNC110 (in virtual time polling costs nothing)
from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

import pytest

from jepsen.history import payload
from jepsen.sim.client import ApiFailure, Client, Unknown
from jepsen.sim.report import quiet
from jepsen.sim.run import run_seed
from jepsen.sim.world import World
from jetstore.store.ports import Kind, Record
from jetstore.store.running_hash import RunningHash
from jetstore.types import Term

BUDGET = 30


def hunt(expected: set[str], **options: Any) -> None:
    """Run small seeds with three machines until one fails with one of these kinds of problem."""
    quiet()
    others: list[str] = []
    for seed in range(BUDGET):
        problems = run_seed(seed, nodes=3, is_small=True, **options).problems
        if any(problem.startswith(tuple(expected)) for problem in problems):
            return
        others += problems[:1]
    raise AssertionError(f"not found within {BUDGET} seeds; only {others}")


def test_a_quorum_of_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def anybody(voters: Any, outgoing: Any, match_index: Callable[[int], int]) -> int:
        return max(match_index(member) for member in voters)

    monkeypatch.setattr("jetstore.raft.leader.committed_index", anybody)
    hunt(
        {"lost", "raft: R3", "raft: R7", "hash", "dup-seq", "run", "err", "exit"},
        workloads=("A",),
        faults=frozenset(["isolate-leader", "partition", "power"]),
    )


def test_a_term_and_vote_that_are_never_written_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(kind: Kind, group: Any, term: Any, *rest: Any) -> Record:
        if kind is Kind.HARD:
            term, rest = Term(0), (*rest[:4], 0, *rest[5:])
        return Record(kind, group, term, *rest)

    monkeypatch.setattr("jetstore.node.group.Record", forgetful)
    hunt(
        {"raft: R10", "raft: R6", "raft: R1", "exit", "live"},
        workloads=("A",),
        faults=frozenset(["isolate-leader", "power", "kill"]),
    )


def test_replicas_that_apply_something_else_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, numbers = RunningHash.take, count()

    def other(running: RunningHash, index: int, term: int, data: bytes) -> None:
        honest(running, index, term, data if next(numbers) % 100 else data + b"?")

    monkeypatch.setattr(RunningHash, "take", other)
    hunt({"hash"}, workloads=("A",), faults=frozenset())


async def _client_of(world: World, stream: str) -> tuple[int, Client]:
    """The machine that leads it, and a connection there."""
    while True:
        for number, machine in enumerate(world.machines):
            if machine.leads(stream):
                return number, await world.connect(f"c{number}", number)
        await asyncio.sleep(0.05)


async def _stale_read(world: World) -> str | None:
    """What a leader answers that was cut off while another one took over; None: nothing, or that it cannot say."""
    await world.all_up()
    _, creator = await _client_of(world, "")
    await creator.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"], "num_replicas": 3})
    old, client = await _client_of(world, "S")
    await client.request("s", payload("before"))
    names = [machine.name for machine in world.machines]
    world.links.partition([names[old]], [name for name in names if name != names[old]])
    others = [number for number in range(3) if number != old]
    while not any(world.machines[number].leads("S") for number in others):
        await asyncio.sleep(0.02)
    new = next(number for number in others if world.machines[number].leads("S"))
    await (await world.connect("new", new)).request("s", payload("after"))
    try:
        answer = await client.api("STREAM.MSG.GET.S", {"last_by_subj": "s"}, timeout_s=3.0)
    except (ApiFailure, Unknown):
        return None
    return str(answer["message"]["seq"])


@pytest.mark.parametrize("is_mutated", [False, True])
def test_a_read_that_no_quorum_confirmed_is_found(monkeypatch: pytest.MonkeyPatch, is_mutated: bool) -> None:
    async def trusting(group: object) -> None:
        """As if it still led."""

    quiet()
    if is_mutated:
        monkeypatch.setattr("jetstore.node.streams_api.confirm_leading", trusting)
        monkeypatch.setattr("jetstore.raft.leader.Leader._check_quorum", lambda leader: None)
    world = World(Random(7), nodes=3)
    found = world.run(_stale_read(world))
    world.close()
    assert (found == "1") is is_mutated
