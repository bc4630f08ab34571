"""IDENTITY: the boot counter never repeats, whatever dies when; damage of one copy is repaired, of both refused."""

from __future__ import annotations

import errno
from random import Random

import pytest

from jepsen.sim.faults import SimCrash, fault
from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption
from jetstore.store.identity import NAMES, Identity, decode, encode, open_identity, read_identity, save_identity


def test_round_trip_and_boot_counter() -> None:
    vfs = SimVfs()
    rng = Random(1)
    first, findings = open_identity(vfs, 'näme "1"\n', rng.randbytes)
    assert (first.boot_counter, first.incarnation, first.journal_born, findings) == (1, 1, False, [])
    vfs.crash()
    second, findings = open_identity(vfs, "another", rng.randbytes)
    assert findings == []
    assert (second.node_name, second.node_id, second.journal_id) == (first.node_name, first.node_id, first.journal_id)
    assert second.boot_counter == 2
    assert second.boot_nonce != first.boot_nonce
    assert decode(encode(second), "x") == second


def test_every_flipped_byte_is_noticed_and_the_other_copy_serves() -> None:
    vfs = SimVfs()
    identity, _ = open_identity(vfs, "n", Random(1).randbytes)
    size = len(vfs.peek(NAMES[0]))
    for name in NAMES:
        for offset in range(size):
            damaged = vfs.clone()
            damaged.poke(name, offset, bytes([vfs.peek(name)[offset] ^ 0x10]))
            found, findings = read_identity(damaged)
            assert found == identity
            assert len(findings) == 1
            again, _ = open_identity(damaged, "n", Random(2).randbytes)
            assert again.boot_counter == 2
            assert read_identity(damaged) == (again, [])
    for name in NAMES:
        vfs.poke(name, 3, b"\xff")
    with pytest.raises(Corruption):
        open_identity(vfs, "n", Random(3).randbytes)


def test_a_lost_copy_is_written_again() -> None:
    vfs = SimVfs()
    open_identity(vfs, "n", Random(1).randbytes)
    vfs.lose(NAMES[1])
    identity, findings = open_identity(vfs, "n", Random(2).randbytes)
    assert identity.boot_counter == 2
    assert len(findings) == 1
    assert vfs.exists(NAMES[1])


def test_a_crash_at_every_boundary_leaves_an_identity_and_never_repeats_a_boot() -> None:
    base = SimVfs()
    known, _ = open_identity(base, "n", Random(1).randbytes)
    cases = 0
    boundary = base.boundaries
    while True:
        boundary += 1
        vfs = base.clone()
        vfs.crash_at(boundary)
        try:
            open_identity(vfs, "n", Random(2).randbytes)
        except SimCrash:
            pass
        else:
            break
        atoms = vfs.unsynced()
        for chosen in range(1 << len(atoms)):
            after = vfs.clone()
            after.crash_keep([atom for bit, atom in enumerate(atoms) if chosen >> bit & 1])
            identity, _ = open_identity(after, "n", Random(3).randbytes)
            assert (identity.node_id, identity.journal_id) == (known.node_id, known.journal_id)
            assert identity.boot_counter >= 2
            cases += 1
    assert cases > 20


def test_a_crash_while_it_is_born_leaves_none_or_a_whole_one() -> None:
    boundary = 0
    while True:
        boundary += 1
        vfs = SimVfs()
        vfs.crash_at(boundary)
        try:
            open_identity(vfs, "n", Random(1).randbytes)
        except SimCrash:
            vfs.crash(Random(boundary))
            open_identity(vfs, "n", Random(2).randbytes)
        else:
            break
    assert boundary > 8


def test_save_changes_both_copies() -> None:
    vfs = SimVfs()
    identity, _ = open_identity(vfs, "n", Random(1).randbytes)
    values = {name: getattr(identity, name) for name in Identity.__slots__}
    changed = Identity(**{**values, "cluster_id": "c1", "journal_born": True})
    save_identity(vfs, changed)
    assert [decode(vfs.peek(name), name) for name in NAMES] == [changed, changed]


def test_a_full_disk_does_not_keep_a_store_from_being_opened() -> None:
    vfs = SimVfs()
    first, _ = open_identity(vfs, "a", Random(1).randbytes)
    vfs.inject(fault("pwrite", "*.tmp", error=errno.ENOSPC, sticky=True))
    again, findings = open_identity(vfs, "a", Random(2).randbytes)
    assert (again.node_id, again.boot_counter) == (first.node_id, 2)
    assert findings == []
    assert read_identity(vfs) == (again, [])


def test_the_only_whole_copy_is_never_overwritten_in_place() -> None:
    vfs = SimVfs()
    open_identity(vfs, "a", Random(1).randbytes)
    vfs.poke("IDENTITY.b", 20, b"\xff")
    vfs.inject(fault("pwrite", "*.tmp", error=errno.ENOSPC, sticky=True))
    with pytest.raises(OSError, match="No space"):
        open_identity(vfs, "a", Random(2).randbytes)
    assert read_identity(vfs)[0] is not None
