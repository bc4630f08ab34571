"""The link to a leader's node is lost: followers stand for election soon, and again while nobody leads."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jetstore.node.raft_host import STANDS_MAX, RaftHost
from jetstore.raft.ready import Role
from jetstore.types import GroupUid

LEADER, OWN = 1, 2


class Loop:
    """Runs what was to be called later, one after the other."""

    def __init__(self) -> None:
        self.due: list[tuple[Any, tuple[Any, ...]]] = []

    def call_later(self, delay_s: float, call: Any, *arguments: Any) -> None:
        assert 0 < delay_s < 0.2
        self.due.append((call, arguments))

    def run(self) -> None:
        while self.due:
            call, arguments = self.due.pop(0)
            call(*arguments)


class Core:
    def __init__(self) -> None:
        self.member, self.leader, self.role, self.is_quiescent = OWN, LEADER, Role.FOLLOWER, False
        members = {number: SimpleNamespace(node=f"n{number}") for number in (1, 2, 3)}
        self.configuration = SimpleNamespace(members=members)
        self.campaigns = 0
        self.after: dict[int, tuple[Role, int]] = {}
        """After that many campaigns: role and leader."""

    @property
    def is_leader(self) -> bool:
        return self.role is Role.LEADER

    def campaign(self) -> None:
        self.campaigns += 1
        self.role, self.leader = self.after.get(self.campaigns, (Role.PRE_CANDIDATE, 0))

    def wake(self) -> None: ...
    def suspect_leader(self) -> None: ...
    def report_unreachable(self, member: int) -> None: ...


@pytest.fixture
def world() -> tuple[RaftHost, Loop, Core]:
    loop, core = Loop(), Core()
    host = RaftHost(cast(Any, loop), Random(1), lambda *_: None)
    for node in ("n1", "n3"):
        host.node_up(node, 1)
    host.add(cast(Any, SimpleNamespace(uid=GroupUid(5), core=core, advance=lambda: None, is_barred=False)))
    return host, loop, core


def test_again_while_nobody_leads(world: tuple[RaftHost, Loop, Core]) -> None:
    host, loop, core = world
    host.node_down("n1")
    loop.run()
    assert core.campaigns == STANDS_MAX


@pytest.mark.parametrize(
    ("role", "leader"),
    [(Role.LEADER, OWN), (Role.FOLLOWER, 3), (Role.CANDIDATE, 0)],
)
def test_no_further_than_it_needs(world: tuple[RaftHost, Loop, Core], role: Role, leader: int) -> None:
    host, loop, core = world
    core.after[2] = (role, leader)
    host.node_down("n1")
    loop.run()
    assert core.campaigns == 2


def test_not_when_the_node_is_back(world: tuple[RaftHost, Loop, Core]) -> None:
    host, loop, core = world
    host.node_down("n1")
    host.node_up("n1", 1)
    loop.run()
    assert core.campaigns == 0


def test_not_for_a_node_that_does_not_lead(world: tuple[RaftHost, Loop, Core]) -> None:
    host, loop, core = world
    host.node_down("n3")
    loop.run()
    assert core.campaigns == 0
