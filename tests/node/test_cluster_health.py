"""When a node of a cluster is fit for traffic: it hears leaders, and has about all that they have committed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jetstore.node.cluster_health import LAG_MAX, cluster_problem
from jetstore.node.node import Node

META = "JetStream has not established contact with a meta leader"
BEHIND_META = "JetStream is not current with the meta leader"
BEHIND = "JetStream stream '$G > S' is not current: group node unhealthy"


def group(uid: int = 2, **core: Any) -> Any:
    """A follower that is up to date, unless told otherwise."""
    log = SimpleNamespace(
        applied_term=core.pop("applied_term", 3),
        applied_index=core.pop("applied_index", 1000),
        committed_index=core.pop("committed_index", 1000),
    )
    follower = SimpleNamespace(
        leader_committed=core.pop("leader_committed", 1000), verified_index=core.pop("verified_index", 1000)
    )
    shown = {"leader": 1, "term": 3, "is_leader": False, "is_quiescent": False, **core}
    return SimpleNamespace(uid=uid, core=SimpleNamespace(log=log, follower=follower, **shown))


def problem(meta: Any, stream: Any, busy: frozenset[int] = frozenset()) -> str:
    node = SimpleNamespace(meta=meta, streams={"S": stream}, behind=SimpleNamespace(busy=busy))
    return cluster_problem(cast(Node, node))


def test_healthy() -> None:
    assert problem(group(1), group()) == ""
    leader = group(is_leader=True, verified_index=0, leader_committed=0)
    assert problem(leader, leader) == ""
    assert problem(group(1), group(is_quiescent=True, verified_index=0)) == ""
    assert problem(group(1), group(leader_committed=1000 + LAG_MAX)) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"leader": 0},
        {"applied_term": 2},
        {"verified_index": 0},
        {"leader_committed": 1001 + LAG_MAX},
        {"committed_index": 1001 + LAG_MAX},
    ],
)
def test_not_yet(change: dict[str, int]) -> None:
    assert problem(group(1), group(**change)) == BEHIND
    assert problem(group(1, **change), group()) == (BEHIND_META if "leader" not in change else META)


def test_a_stream_that_fetches_a_state() -> None:
    assert problem(group(1), group(2), frozenset({2})) == BEHIND
    assert problem(group(1), group(2), frozenset({5})) == ""
