"""Before a clean stop others are asked to lead, and are waited for; who does not take over does not hold it up."""

from __future__ import annotations

import asyncio

import pytest

from jetstore.node import hand_over as module
from jetstore.node.hand_over import hand_over


class Core:
    def __init__(self, is_leader: bool) -> None:
        self.is_leader = is_leader


class Group:
    """Somebody takes over after so many turns of the loop; None: never."""

    def __init__(self, is_leader: bool, turns: int | None = 0) -> None:
        self.core = Core(is_leader)
        self.turns = turns
        self.asked = 0

    def hand_over(self) -> None:
        self.asked += 1
        if self.turns is not None:
            asyncio.get_running_loop().call_soon(self._turn, self.turns)

    def _turn(self, left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(self._turn, left - 1)
        else:
            self.core.is_leader = False


async def run(groups: list[Group]) -> int:
    return await hand_over(groups, asyncio.get_running_loop())


def test_all_that_it_leads_and_nothing_else() -> None:
    groups = [Group(True), Group(False), Group(True, turns=20)]
    assert asyncio.run(run(groups)) == 0
    assert [group.asked for group in groups] == [1, 0, 1]


def test_who_does_not_take_over_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HAND_OVER_S", 0.02)
    assert asyncio.run(run([Group(True), Group(True, turns=None)])) == 1
