"""Asks all nodes again and again what they believe, keeps what changed, and counts which fault met which transition."""

from __future__ import annotations

import contextvars
from collections import Counter

from jepsen.history import AppliedHash, RaftPromise, RaftState
from jepsen.sim.world import World

SAMPLE_S = 0.005
IN_EFFECT_S = 2.0
"""How long a fault counts as present when something changes."""
FACTS_MAX = 200_000


class Recorder:
    """The trace of one run, for the checkers ``raft`` and ``hash`` and for the matrix fault × transition."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.states: list[RaftState] = []
        self.promises: list[RaftPromise] = []
        self.hashes: list[AppliedHash] = []
        self.matrix: Counter[tuple[str, str]] = Counter()
        self.is_running = False
        self._last: dict[tuple[str, str], RaftState] = {}
        self._struck: dict[str, float] = {}

    def start(self) -> None:
        """Sample until ``stop``."""
        self.is_running = True
        self._tick()

    def stop(self) -> None:
        """One last look."""
        self.sample()
        self.is_running = False

    def struck(self, fault: str) -> None:
        """This fault is in effect."""
        self._struck[fault] = self.world.loop.now()

    def _tick(self) -> None:
        if self.is_running:
            self.sample()
            self.world.loop.call_later(SAMPLE_S, self._tick, context=_NOBODY)

    def sample(self) -> None:
        """Look now."""
        for machine in self.world.machines:
            if not machine.has_run():
                continue
            promises, hashes = machine.gather()
            self.promises += promises
            self.hashes += hashes
            for state in machine.states():
                self._take(state)
        assert len(self.states) + len(self.promises) + len(self.hashes) < FACTS_MAX, "a run has its bounds"

    def _take(self, state: RaftState) -> None:
        key = (state.node, state.group)
        before = self._last.get(key)
        if before is state:
            return
        if before is not None and before[1:] == state[1:]:
            return
        self._last[key] = state
        self.states.append(state)
        changes = transitions(before, state)
        if not changes:
            return
        now = self.world.loop.now()
        present = [fault for fault, at_s in self._struck.items() if now - at_s <= IN_EFFECT_S] or ["(none)"]
        for fault in present:
            for change in changes:
                self.matrix[fault, change] += 1


_NOBODY = contextvars.Context()


def transitions(before: RaftState | None, after: RaftState) -> list[str]:
    """What happened between two beliefs of one node about one group."""
    if before is None or before.boot != after.boot:
        return ["first seen" if before is None else "back after a restart"]
    found = []
    if before.role != after.role:
        found.append(f"becomes {after.role}")
    if after.term > before.term:
        found.append("new term")
    if after.commit > before.commit:
        found.append("commit")
    if after.voters != before.voters:
        found.append("configuration")
    if after.first_index > before.first_index:
        found.append("checkpoint")
    if after.first_index > before.last_index + 1:
        found.append("checkpoint installed")
    if after.last_index < before.last_index:
        found.append("log cut")
    return found
