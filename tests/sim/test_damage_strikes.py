"""Any sequence of strikes on a disk is possible, also where one took something away; none asks for the impossible."""

from __future__ import annotations

from random import Random

from jepsen.nemesis.damage import FILE_CLASSES, KINDS, strike
from jepsen.sim.vfs import SimVfs
from jetstore.limits import KIB, Limits
from jetstore.store.journal.recovery import open_journal
from jetstore.store.ports import Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term

NAMES = ("IDENTITY", "IDENTITY.b", "journal/1", "groups/2/HEAD.a", "groups/2/segments/1", "index/data")


def disk(content: bytes) -> SimVfs:
    vfs = SimVfs()
    for name in ("journal", "groups", "groups/2", "groups/2/segments", "index"):
        vfs.mkdir(name)
    for name in NAMES:
        handle = vfs.open(name, create=True)
        vfs.pwrite(handle, [content], 0)
        vfs.close(handle)
    return vfs


def test_strikes_after_each_other() -> None:
    for seed in range(200):
        rng = Random(seed)
        now, earlier = disk(b"now" * 700), disk(b"earlier" * 200)
        done = [strike(now, rng, rng.choice(list(FILE_CLASSES)), rng.choice(KINDS), earlier) for _ in range(12)]
        assert any(done)


LIMITS = Limits(
    journal_file_bytes=32 * KIB,
    journal_spare_files=2,
    journal_bytes_max=256 * KIB,
    block_bytes_max=8 * KIB,
    entry_bytes_max=4 * KIB,
    max_payload_bytes=4 * KIB,
    journal_reappend_bytes=4 * KIB,
    zeroing_bytes=32 * KIB,
    segment_sync_bytes=8 * KIB,
)
JOURNAL_ID = b"journal-id-16byt"


def hard(term: int) -> Record:
    return Record(Kind.HARD, GroupUid(1), Term(term), Term(0), RaftIndex(0), RaftIndex(0), 0, 1, b"")


def test_a_last_block_without_its_second_evidence_is_never_made_to_look_torn() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    earlier = vfs.clone()
    for term in (1, 2, 3):
        journal.append([hard(term)])
    journal.close()
    vfs.crash()
    tried = 0
    for seed in range(400):
        rng, disk = Random(seed), vfs.clone()
        if strike(disk, rng, "journal", rng.choice(("zero", "stale", "misdirect")), earlier) is None:
            continue
        tried += 1
        _, recovery = open_journal(disk, LIMITS, JOURNAL_ID)
        group = recovery.groups[GroupUid(1)]
        assert group.term == 3 or not group.hard_state_known, seed
    assert tried > 100
