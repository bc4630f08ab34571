"""A store is a lone server's or a cluster member's, and is served as nothing else."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from damaged_store import LIMITS, fingerprint, small_store

from jetstore.errors import OperatingError
from jetstore.node.examine import examine
from jetstore.node.open_store import check_mode, open_store
from jetstore.node.recover import recover
from jetstore.store.identity import Identity, read_identity, save_identity
from jetstore.store.ports import GroupRecovery, JournalRecovery
from jetstore.types import META_GROUP


def identity(cluster_id: str) -> Identity:
    return Identity("n1", "a" * 16, 1, cluster_id, 1, "b" * 16, "c" * 32, journal_born=True)


EMPTY = JournalRecovery({}, [], is_new=False)
USED = JournalRecovery({META_GROUP: GroupRecovery(META_GROUP)}, [], is_new=False)


@pytest.mark.parametrize("is_clustered", [False, True])
def test_a_store_that_nothing_was_promised_in_may_become_either(is_clustered: bool) -> None:
    check_mode(identity(""), EMPTY, is_clustered=is_clustered)


def test_each_in_its_own_mode() -> None:
    check_mode(identity(""), USED, is_clustered=False)
    check_mode(identity("f00"), USED, is_clustered=True)
    check_mode(identity("f00"), EMPTY, is_clustered=True)


def test_a_lone_servers_store_joins_no_cluster() -> None:
    with pytest.raises(OperatingError, match="belongs to a standalone server"):
        check_mode(identity(""), USED, is_clustered=True)


@pytest.mark.parametrize("recovery", [EMPTY, USED])
def test_a_members_store_is_not_served_alone(recovery: JournalRecovery) -> None:
    with pytest.raises(OperatingError, match="n1 of cluster f00"):
        check_mode(identity("f00"), recovery, is_clustered=False)


def test_a_disk_that_was_refused_as_an_old_one_is_never_served_again() -> None:
    vfs = small_store(6, 2)
    known, _ = read_identity(vfs)
    assert known is not None
    save_identity(vfs, replace(known, disowned="10.0.0.2:6222: block 100 was durable before"))
    before = fingerprint(vfs)
    for _ in range(2):
        with pytest.raises(OperatingError, match=r"old or cloned copy.*10\.0\.0\.2.*empty store directory"):
            open_store(vfs, LIMITS, "n1", Random(1).randbytes)
    report, files = examine(vfs, LIMITS)
    files.close()
    assert not report.is_sound
    assert any("block 100 was durable before" in finding for finding in report.findings)
    done, remaining = recover(vfs, LIMITS, lambda name, lines: sum(1 for _ in lines))
    assert (done, len(remaining)) == ([], 1)
    assert fingerprint(vfs) == before
