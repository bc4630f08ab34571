"""Goal: what was heard of other nodes is in every block, and comes back as of the last one that counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from journal_model import JOURNAL_ID, Model, entries, hard, small_limits
from test_journal_golden import golden, to_hex

from jepsen.sim.vfs import SimVfs
from jetstore.store.journal.append import Journal
from jetstore.store.journal.recovery import open_journal, read_journal
from jetstore.store.ports import Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term

LIMITS = small_limits(file_bytes=32 * 1024, block_bytes=8 * 1024, spares=1)
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "format"


def peers(body: bytes) -> Record:
    none = RaftIndex(0)
    return Record(Kind.PEERS, GroupUid(0), Term(0), Term(0), none, none, 0, 0, body)


def heard(vfs: SimVfs) -> bytes:
    return read_journal(vfs, LIMITS, JOURNAL_ID).peers


def started() -> tuple[SimVfs, Journal]:
    vfs = SimVfs()
    journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert recovery.peers == b""
    return vfs, journal


def test_golden_bytes() -> None:
    vfs, journal = started()
    journal.append([peers(b"heard of others"), hard(1, 1)])
    journal.close()
    first = vfs.files()[0]
    assert to_hex(vfs.peek(first)) == to_hex(golden("journal-peers-0"))
    assert heard(vfs) == b"heard of others"


def test_it_stays_over_blocks_files_starts_and_power_cuts() -> None:
    vfs, journal = started()
    model = Model()
    first = [hard(1, 1), entries(1, 1, 0, 1, [b"x" * 500])]
    journal.append([peers(b"p" * 700), *first])
    model.told(first)
    for index in range(2, 30):  # over several files: the group's table names those that are needed
        records = [entries(1, 1, 1, index, [b"x" * 3000])]
        journal.append(records)
        model.told(records)
    for _ in range(3):
        journal.close()
        vfs.crash()
        assert heard(vfs) == b"p" * 700
        journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
        assert recovery.peers == b"p" * 700
        assert model.matches(recovery) == ""
        assert not recovery.findings
    journal.append([peers(b"newer")])
    journal.idle()
    assert heard(vfs) == b"newer"


def test_a_torn_block_says_nothing() -> None:
    vfs, journal = started()
    journal.append([peers(b"told"), hard(1, 1)])
    before = {path: vfs.peek(path) for path in vfs.files()}
    journal.append([peers(b"torn"), hard(1, 2)])
    journal.close()
    for path, data in before.items():
        vfs.poke(path, 0, data)
    assert heard(vfs) == b"told"


@pytest.mark.parametrize("copies", [1, 2])
def test_damage_of_the_last_head(copies: int) -> None:
    """One copy is enough; if both are bad the block before says what it knew."""
    vfs, journal = started()
    journal.append([peers(b"A" * 700), hard(1, 1)])
    journal.append([peers(b"B" * 700), hard(1, 2)])
    journal.close()
    path = vfs.files()[0]
    places = []
    at = vfs.peek(path).find(b"B" * 100)
    while at >= 0:
        places.append(at)
        at = vfs.peek(path).find(b"B" * 100, at + 2000)
    assert len(places) == 2
    for at in places[:copies]:
        vfs.poke(path, at, b"?")
    assert heard(vfs) == (b"B" if copies == 1 else b"A") * 700


def test_a_full_journal_does_not_forget_it() -> None:
    vfs, journal = started()
    journal.append([peers(b"heard")])
    assert journal.position.peers == b"heard"
    identity, files, table, position = journal.detach()
    journal = Journal(vfs, LIMITS, identity, files, table, position)  # as the writer process does
    journal.append([hard(1, 1)])
    journal.close()
    assert heard(vfs) == b"heard"
