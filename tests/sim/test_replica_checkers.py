"""Goal: each checker of replicated groups objects to the one thing it is there for, and to nothing in a good trace."""

from __future__ import annotations

from typing import Any

import pytest

from jepsen.checker.ghosts import Holdings, check_ghosts
from jepsen.checker.raft import check_raft
from jepsen.checker.replicas import check_hashes, check_nodes, check_stale
from jepsen.history import AppliedHash, History, RaftPromise, RaftState, Seen, payload

START = RaftState(0, "n1", "i1", 1, "g", 1, 1, 0, "follower", 0, 0, ((1, 2, 3),), 0, 0, 1)


def at(ms: int, member: int = 1, **facts: Any) -> RaftState:
    """A state of that member (on the node of its number) then."""
    return START._replace(at_ns=ms * 1_000_000, node=f"n{member}", incarnation=f"i{member}", member=member, **facts)


def promise(ms: int, member: int = 1, **facts: Any) -> RaftPromise:
    base = RaftPromise(ms * 1_000_000, f"n{member}", f"i{member}", 1, "g", member, 1)
    return base._replace(**facts)


GOOD = [
    at(1, 1, term=1, vote=1, role="candidate"),
    at(2, 2, term=1, vote=1),
    at(3, 1, term=1, vote=1, role="leader", last_index=1, last_term=1),
    at(4, 2, term=1, vote=1, last_index=5, last_term=1),
    at(5, 1, term=1, vote=1, role="leader", last_index=5, last_term=1, commit=3, applied=2),
    at(6, 3, term=2, vote=2, last_index=1, last_term=1),
    at(7, 2, term=2, vote=2, role="leader", last_index=6, last_term=2, commit=5, applied=5),
    at(8, 1, term=2, boot=2, last_index=3, last_term=1, commit=0, applied=0),
    at(9, 1, term=2, boot=2, last_index=6, last_term=2, commit=6, applied=6),
    at(10, 2, term=2, vote=2, role="leader", last_index=7, last_term=2, commit=6, applied=6, voters=((1, 2, 3, 4),)),
]
PROMISES = [
    promise(2, 2, term=1, vote=1),
    promise(4, 2, term=1, last_term=1, last_index=5, match_index=5),
    promise(5, 1, term=1, last_term=1, last_index=3),
]


def rules(states: list[RaftState], promises: list[RaftPromise] | None = None) -> set[str]:
    """The invariants that are said to be broken."""
    return {problem.split()[1] for problem in check_raft(states, promises or [])}


def test_a_good_trace_passes() -> None:
    assert check_raft(GOOD, PROMISES) == []


BAD = {
    "R1": [at(20, 3, term=2, vote=2, role="leader", last_index=9, last_term=2)],
    "R3": [at(20, 3, term=3, vote=3, role="leader", last_index=5, last_term=2)],
    "R5 term": [at(20, 2, term=1, vote=1, last_index=7, last_term=2, commit=6, applied=6)],
    "R5 commit": [at(20, 2, term=2, vote=2, last_index=7, last_term=2, commit=5, applied=5)],
    "R5 order": [at(20, 3, term=2, vote=2, last_index=7, last_term=2, commit=5, applied=6)],
    "R5 last": [at(20, 3, term=2, vote=2, last_index=4, last_term=2, commit=5, applied=4)],
    "R6": [at(20, 3, term=2, vote=1, last_index=1, last_term=1)],
    "R7": [at(20, 1, boot=2, term=2, last_index=5, last_term=2, commit=5, applied=5)],
    "R8": [
        at(20, 2, term=2, vote=2, role="leader", last_index=8, last_term=2, commit=6, applied=6, voters=((2, 4, 5),)),
        at(21, 2, term=2, vote=2, role="leader", last_index=9, last_term=2, commit=6, applied=6, voters=((2, 6, 7),)),
    ],
    "R9": [at(20, 4, term=3, vote=4, role="leader", last_index=9, last_term=2)],
}


@pytest.mark.parametrize("name", BAD)
def test_each_broken_invariant_is_named(name: str) -> None:
    expected = {"R5", "R7"} if name == "R7" else {name.split()[0]}
    assert rules([*GOOD, *BAD[name]], PROMISES) == expected


def test_what_was_only_in_memory_may_be_forgotten() -> None:
    assert rules([*GOOD, at(20, 3, boot=2, term=1, vote=3, last_index=0)], PROMISES) == set()


def test_a_joint_change_and_one_that_skips_nobody_are_fine() -> None:
    steps = [((1, 2, 3),), ((1, 2, 4), (1, 2, 3)), ((1, 2, 4),), ((1, 2, 4, 5),)]
    trace = [
        at(number, 1, role="leader", term=1, vote=1, last_index=number, last_term=1, voters=voters)
        for number, voters in enumerate(steps, 1)
    ]
    assert rules(trace) == set()
    assert rules([trace[0], trace[2]._replace(last_index=2)]) == {"R8"}


def test_what_a_message_implied_must_be_there_after_a_restart() -> None:
    said = [promise(10, 1, term=4, last_term=3, last_index=8)]
    assert rules([at(20, 1, boot=2, term=4, last_index=8, last_term=3)], said) == set()
    assert rules([at(20, 1, boot=2, term=4, last_index=5, last_term=4)], said) == set(), "overruled by a newer leader"
    assert rules([at(20, 1, boot=2, term=3, last_index=8, last_term=3)], said) == {"R10"}
    assert rules([at(20, 1, boot=2, term=4, last_index=7, last_term=3)], said) == {"R10"}
    assert rules([at(20, 1, boot=2, term=4)._replace(incarnation="new disk")], said) == set()


def test_a_vote_in_a_message_counts_as_much_as_one_in_memory() -> None:
    said = [promise(10, 3, term=2, vote=1)]
    assert rules([at(20, 3, boot=2, term=2, vote=3)], said) == {"R6"}


def seen(seq: int, value: str) -> Seen:
    return Seen("S", seq, "s.1", payload(value))


def test_a_node_that_shows_something_else_is_named() -> None:
    good = {1: seen(1, "a"), 2: seen(2, "b")}
    assert check_nodes("S", {"n1": good, "n2": dict(good)}) == []
    missing = check_nodes("S", {"n1": good, "n2": {1: seen(1, "a")}})
    assert missing == ["lost-on-node: seq 2 of S is missing on n2"]
    differs = check_nodes("S", {"n1": good, "n2": {1: seen(1, "a"), 2: seen(2, "c")}})
    assert len(differs) == 1
    assert "seq 2 of S differs" in differs[0]


def test_two_hashes_of_one_index_are_found() -> None:
    good = [AppliedHash("n1", "g", 5, "aa"), AppliedHash("n2", "g", 5, "aa"), AppliedHash("n2", "h", 5, "bb")]
    assert check_hashes(good) == []
    assert check_hashes([*good, AppliedHash("n3", "g", 5, "ab")]) == [
        "hash: g up to index 5 is aa on n1, ab on n3",
    ]


def test_a_stale_read_may_be_old_but_not_older_than_what_was_acknowledged_here() -> None:
    history = History(iter(range(1000)).__next__)
    for seq in (1, 2):
        history.begin(1, "publish", stream="S", subject="s.1", value=f"v{seq}").ok(seq=seq, duplicate=False)
    by_seq = history.begin(1, "direct_get", stream="S", seq=1)
    by_seq.ok(seen=[seen(1, "v1")])
    newest = history.begin(1, "direct_get", stream="S", subject="s.1", min_seq=1)
    newest.ok(seen=[seen(1, "v1")])
    assert check_stale(history, "S") == []
    newest.args["min_seq"] = 2
    assert [problem[:8] for problem in check_stale(history, "S")] == ["stale: 2"]
    newest.args["min_seq"] = 0
    by_seq.result["seen"] = [seen(1, "v2")]
    assert [problem[:12] for problem in check_stale(history, "S")] == ["stale: seq 1"]


def test_ghosts_are_groups_that_the_metadata_does_not_give() -> None:
    fine = Holdings("n1", frozenset(["2", "3"]), frozenset(["2", "3"]), frozenset(["2"]))
    assert check_ghosts([fine]) == []
    assert len(check_ghosts([fine._replace(open=frozenset(["2", "3", "4"]))])) == 1
    assert len(check_ghosts([fine._replace(open=frozenset(["2"]))])) == 1
    assert len(check_ghosts([fine._replace(on_disk=frozenset(["2", "5"]))])) == 1
