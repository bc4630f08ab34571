"""Goal: the harness finds what it is there to find. Method: break the server (or its disk) in one known way and run
seeds until a checker objects; each defect must be found within its budget, and by a checker that names it rightly."""

from __future__ import annotations

import asyncio
from itertools import takewhile
from typing import Any

import pytest

from jepsen.history import payload
from jepsen.sim.client import ApiFailure, Unknown
from jepsen.sim.command import quiet
from jepsen.sim.faults import fault
from jepsen.sim.run import run_seed
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World, play
from jetstore.node.open_store import open_store
from jetstore.store.ports import JournalRecovery

BUDGET = 40
POWER = frozenset(["power", "crash-point"])


def hunt(expected: set[str], **options: Any) -> None:
    """Run small seeds until one fails with one of these kinds of problem."""
    quiet()
    others: list[str] = []
    for seed in range(BUDGET):
        problems = run_seed(seed, is_small=True, **options).problems
        if {problem.split(":")[0] for problem in problems} & expected:
            return
        others += problems[:1]
    raise AssertionError(f"not found within {BUDGET} seeds; only {others}")


def test_syncs_that_do_nothing_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(vfs: SimVfs, op: str, handle: int) -> None:
        vfs._check(op, vfs._handle(handle)[1])

    monkeypatch.setattr(SimVfs, "_sync", lazy)
    hunt({"lost", "live", "gap"}, workloads=("A",), faults=POWER, damaged=False)


def test_directory_syncs_that_do_nothing_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimVfs, "fsync_dir", lambda vfs, path: vfs._check("fsync_dir", path))
    hunt({"lost", "live", "gap", "exit"}, workloads=("A",), faults=POWER, damaged=False)


def test_a_failed_sync_that_is_ignored_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Method: scripted, since a drawn run rarely has the failed sync, acks after it and then a power cut."""
    honest = SimVfs.fdatasync

    def careless(vfs: SimVfs, handle: int) -> None:
        try:
            honest(vfs, handle)
        except OSError:
            pass  # as if nothing had happened

    async def story(world: World) -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"]})
        for number in range(20):
            if number == 10:
                world.machine.vfs.inject(fault("fdatasync", "journal/*", sticky=True))
            elif number == 15:
                world.machine.heal_disk()
            acked = (await client.request("s", b"x")).json()["seq"]
        world.machine.power_cut(0.1)
        client = await world.up()
        assert (await client.api("STREAM.INFO.S"))["state"]["last_seq"] == acked

    quiet()
    with pytest.raises(Unknown):
        play(story, seed=1)  # the honest server stops instead of acknowledging
    monkeypatch.setattr(SimVfs, "fdatasync", careless)
    with pytest.raises((AssertionError, ApiFailure)):
        play(story, seed=1)


def test_forgotten_message_ids_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetstore.stream.dedupe.Dedupe.add", lambda *args: None)
    hunt({"dup-msg"}, workloads=("D",), faults=frozenset(["kill", "reset"]), damaged=False)


def test_cutting_the_log_at_damage_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Method: recovery drops an unreadable entry and all after it, as if they had never been."""

    def cutting(*args: Any) -> tuple[Any, JournalRecovery, Any]:
        journal, recovery, identity = open_store(*args)
        for group in recovery.groups.values():
            good = list(takewhile(lambda entry: entry.data is not None, group.entries))
            if len(good) < len(group.entries):
                group.entries = good
                group.last_index = good[-1].index if good else group.checkpoint_index
                group.last_term = good[-1].term if good else group.checkpoint_term
        return journal, recovery, identity

    async def story(world: World) -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"]})
        for number in range(1, 31):
            await client.request("s", payload(f"{number}", 300))
        await asyncio.sleep(1)
        world.machine.power_cut(0.1)
        vfs, needle = world.machine.vfs, payload("20", 300)
        path, offset = next((p, at) for p in vfs.files() if p[0] == "j" and (at := vfs.peek(p).find(needle)) >= 0)
        vfs.poke(path, offset + 100, b"rot")
        client = await world.up()
        answer = (await client.request("s", b"more")).json()
        assert answer["seq"] > 30, "a sequence was given twice"

    quiet()
    with pytest.raises(ApiFailure):
        play(story, seed=1)  # the honest server refuses
    monkeypatch.setattr("jepsen.sim.server.open_store", cutting)
    with pytest.raises(AssertionError, match="given twice"):
        play(story, seed=1)
