"""Goal: a disk that goes back is noticed, whatever the order in which honest words arrive is not."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen.sim.vfs import SimVfs
from jetstore.limits import KIB, Limits
from jetstore.node.link.peer_memory import ROWS_MAX, PeerMemory, Sighting, Verdict, boot_told, decode_rows
from jetstore.node.open_store import open_store
from jetstore.store.identity import NAMES, Identity, read_identity
from jetstore.store.ports import Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term

NODE = "00000000000000b2"
KNOWN = Sighting(incarnation=2, boot_counter=5, boot_nonce="aa", durable_lsn=100)


def memory() -> PeerMemory:
    made = PeerMemory(10)
    assert made.observe(NODE, KNOWN, made.snapshot()) is Verdict.NEW
    return made


@pytest.mark.parametrize(
    ("said", "verdict", "why"),
    [
        (KNOWN, Verdict.SAME_LIFE, ""),
        (KNOWN._replace(durable_lsn=101), Verdict.SAME_LIFE, ""),
        (KNOWN._replace(durable_lsn=99), Verdict.OLD_DISK, "journal ends at block 99, but block 100 was durable"),
        (KNOWN._replace(boot_nonce="bb"), Verdict.OLD_DISK, "boot 5 with two nonces"),
        (KNOWN._replace(boot_nonce="bb", durable_lsn=200), Verdict.OLD_DISK, "boot 5 with two nonces"),
        (KNOWN._replace(boot_counter=4, durable_lsn=200), Verdict.OLD_DISK, "boot 4, but boot 5"),
        (KNOWN._replace(boot_counter=6, boot_nonce="bb"), Verdict.RESTARTED, ""),
        (KNOWN._replace(boot_counter=6, boot_nonce="bb", durable_lsn=99), Verdict.OLD_DISK, "journal ends"),
        (Sighting(3, 1, "bb", 0), Verdict.RESTARTED, ""),
        (Sighting(1, 9, "bb", 900), Verdict.OLD_DISK, "incarnation 1, but 2"),
    ],
)
def test_verdicts(said: Sighting, verdict: Verdict, why: str) -> None:
    made = memory()
    assert made.observe(NODE, said, made.snapshot()) is verdict
    if verdict is Verdict.OLD_DISK:
        assert made.highest(NODE) == KNOWN
        assert why in made.alarms[NODE].text
        made.observe(NODE, said, made.snapshot())
        assert made.alarms[NODE].count == 2
    else:
        assert made.highest(NODE) == said
        assert made.alarms == {}


def test_a_later_life_ends_the_alarm() -> None:
    made = memory()
    made.observe(NODE, KNOWN._replace(boot_counter=4), made.snapshot())
    assert made.alarms
    made.observe(NODE, KNOWN, made.snapshot())
    assert made.alarms  # the other disk is still somewhere
    made.observe(NODE, KNOWN._replace(boot_counter=6), made.snapshot())
    assert made.alarms == {}


def test_words_that_were_on_their_way_are_no_contradiction() -> None:
    made = memory()
    asked = made.snapshot()
    made.advance(NODE, 150)
    assert made.observe(NODE, KNOWN._replace(durable_lsn=120), asked) is Verdict.SAME_LIFE
    assert made.highest(NODE) == KNOWN._replace(durable_lsn=150)
    later = Sighting(2, 6, "bb", 160)
    assert made.observe(NODE, later, made.snapshot()) is Verdict.RESTARTED
    assert made.observe(NODE, KNOWN._replace(durable_lsn=155), asked) is Verdict.OVERTAKEN
    assert (made.highest(NODE), made.alarms) == (later, {})
    assert made.observe(NODE, later._replace(boot_nonce="cc"), asked) is Verdict.OLD_DISK


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.booleans()), max_size=40))
def test_an_honest_node_never_alarms(steps: list[tuple[bool, int, bool]]) -> None:
    """It restarts, makes blocks durable, and is asked on connections whose answers overlap."""
    made = PeerMemory(10)
    life = Sighting(1, 1, "1", 0)
    on_their_way: list[tuple[Sighting, object]] = []
    for restarts, blocks, arrives in steps:
        asked = made.snapshot()
        if restarts:
            life = Sighting(1, life.boot_counter + 1, str(life.boot_counter + 1), life.durable_lsn)
        life = life._replace(durable_lsn=life.durable_lsn + blocks)
        on_their_way.append((life, asked))
        if arrives:
            said, then = on_their_way.pop(blocks % len(on_their_way))
            assert made.observe(NODE, said, then) is not Verdict.OLD_DISK  # type: ignore[arg-type]
    assert made.alarms == {}


def test_what_an_earlier_life_of_this_node_remembered_counts() -> None:
    rows = [(NODE, KNOWN), (NODE, KNOWN._replace(boot_counter=4, boot_nonce="z")), ("a", Sighting(1, 1, "q", 1))]
    for order in (rows, rows[::-1]):
        made = PeerMemory(10, order)
        assert made.rows() == [(NODE, KNOWN), ("a", Sighting(1, 1, "q", 1))]
        assert made.observe(NODE, KNOWN._replace(durable_lsn=1), made.snapshot()) is Verdict.OLD_DISK


def test_it_is_bounded() -> None:
    made = PeerMemory(1, [(NODE, KNOWN)])
    assert made.has_room_for(NODE)
    assert not made.has_room_for("another")


def test_what_the_journal_remembers_is_all_there_was_and_only_news() -> None:
    made = PeerMemory(10)
    assert made.take_changes() == b""
    for number in range(3):
        made.observe(f"{number:016x}", Sighting(1, 5, "ab" * 8, number), made.snapshot())
    made.advance(f"{1:016x}", 77)
    taken = made.take_changes()
    assert dict(decode_rows(taken)) == dict(made.rows())
    assert made.take_changes() == b""
    made.advance(f"{1:016x}", 77)
    assert made.take_changes() == b""
    again = PeerMemory(10, decode_rows(taken))
    old = Sighting(1, 6, "cd" * 8, 76)
    assert again.observe(f"{1:016x}", old, again.snapshot()) is Verdict.OLD_DISK
    assert again.take_changes() == b""
    with pytest.raises(ValueError, match="37 bytes"):
        decode_rows(bytes(37))


def test_the_journal_remembers_those_seen_last() -> None:
    made = PeerMemory(1000)
    for number in range(ROWS_MAX + 5):
        made.observe(f"{number:016x}", Sighting(1, 5, "ab" * 8, 1), {})
    made.observe(f"{0:016x}", Sighting(1, 6, "ab" * 8, 1), made.snapshot())
    kept = [int(node_id, 16) for node_id, _ in decode_rows(made.take_changes())]
    assert kept == [*range(6, ROWS_MAX + 5), 0]


def test_the_journal_remembers_this_life_of_the_node_itself_above_all() -> None:
    own = "f" * 16
    made = PeerMemory(1000, own=(own, Sighting(2, 7, "ab" * 8, 0)))
    assert decode_rows(made.take_changes()) == [(own, Sighting(2, 7, "ab" * 8, 0))]
    assert made.take_changes() == b""
    for number in range(ROWS_MAX + 5):
        made.observe(f"{number:016x}", Sighting(1, 5, "ab" * 8, 1), {})
    taken = made.take_changes()
    assert [row[0] for row in decode_rows(taken)] == [own, *(f"{n:016x}" for n in range(6, ROWS_MAX + 5))]
    assert boot_told(taken, own, 2) == 7
    assert boot_told(taken, own, 3) == boot_told(taken, "e" * 16, 1) == boot_told(b"", own, 2) == 0


def test_an_older_identity_goes_on_from_the_life_that_the_journal_tells_of() -> None:
    vfs = SimVfs()
    limits = Limits(
        journal_file_bytes=64 * KIB,
        journal_bytes_max=512 * KIB,
        block_bytes_max=16 * KIB,
        entry_bytes_max=4 * KIB,
        max_payload_bytes=4 * KIB,
        journal_reappend_bytes=4 * KIB,
    )

    def start() -> Identity:
        journal, _, identity = open_store(vfs, limits, "n1", Random(1).randbytes)
        own = Sighting(1, identity.boot_counter, "ab" * 8, 0)
        made = PeerMemory(10, own=(identity.node_id, own))
        none = RaftIndex(0)
        journal.append([Record(Kind.PEERS, GroupUid(0), Term(0), Term(0), none, none, 0, 0, made.take_changes())])
        journal.close()
        vfs.crash()
        return identity

    assert [start().boot_counter for _ in range(2)] == [1, 2]
    old = vfs.clone()
    assert [start().boot_counter for _ in range(3)] == [3, 4, 5]
    for name in NAMES:
        vfs.cut(name, len(old.peek(name)))
        vfs.poke(name, 0, old.peek(name))
    assert start().boot_counter == 6
    found, _ = read_identity(vfs)
    assert found is not None
    assert found.boot_counter == 6
