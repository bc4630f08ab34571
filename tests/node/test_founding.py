"""Founding: the same cluster on every founder, by all of them or by none; who lost its disk founds nothing."""

from __future__ import annotations

from jetstore.node.founding import PeerState, cluster_of, decide
from jetstore.store.identity import FoundingNode

A, B, C = (FoundingNode(name, name * 16, 1) for name in "abc")
BLANK_A, BLANK_B, BLANK_C = (PeerState(node, "") for node in (A, B, C))
FOUNDED = cluster_of("east", [A, B, C])


def test_every_founder_founds_the_same_cluster() -> None:
    decisions = [
        decide("east", A, [BLANK_B, BLANK_C], 3),
        decide("east", B, [BLANK_C, BLANK_A], 3),
        decide("east", C, [BLANK_A, BLANK_B], 3),
    ]
    assert decisions == [FOUNDED] * 3
    assert FOUNDED.nodes == (A, B, C)
    assert decide("west", A, [BLANK_B, BLANK_C], 3) != FOUNDED


def test_nobody_founds_while_one_is_missing_or_too_many_are_there() -> None:
    assert "1 of 3 founding nodes are not connected" in str(decide("east", A, [BLANK_B], 3))
    assert "3 nodes are connected, 2 are to found" in str(decide("east", A, [BLANK_B, BLANK_C], 2))
    twin = PeerState(FoundingNode("b", "other", 1), "")
    assert "the same name" in str(decide("east", A, [BLANK_B, twin], 3))


def test_a_founder_that_was_away_adopts_what_the_others_founded() -> None:
    assert decide("east", C, [PeerState(A, FOUNDED.cluster_id), PeerState(B, FOUNDED.cluster_id)], 3) == FOUNDED
    assert decide("east", C, [BLANK_B, PeerState(A, FOUNDED.cluster_id)], 3) == FOUNDED
    assert "1 of 3" in str(decide("east", C, [PeerState(A, FOUNDED.cluster_id)], 3))


def test_a_node_with_a_new_disk_waits_to_be_added_and_founds_nothing() -> None:
    peers = [PeerState(A, FOUNDED.cluster_id), PeerState(B, FOUNDED.cluster_id)]
    assert "no founder" in str(decide("east", C._replace(node_id="d" * 16), peers, 3))
    assert "no founder" in str(decide("east", C._replace(incarnation=2), peers, 3))
    assert "no founder" in str(decide("east", C._replace(incarnation=2), [peers[0], BLANK_B], 3))


def test_a_cluster_of_another_name_is_not_adopted() -> None:
    assert "no founder" in str(decide("west", C, [BLANK_B, PeerState(A, FOUNDED.cluster_id)], 3))
