"""Bytes on disk are what the format pages say: golden files are compared with what is written, and read back.

A golden file is never rewritten: a new format version adds another, and the old one must still be read.
"""

from __future__ import annotations

from pathlib import Path

from journal_model import JOURNAL_ID, Model, checkpoint, entries, hard, small_limits

from jepsen.sim.vfs import SimVfs
from jetstore.store.checkpoint_files import make_group_dir, read_heads, write_head
from jetstore.store.identity import FoundingNode, Identity, decode, encode
from jetstore.store.journal.recovery import open_journal

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "format"
LIMITS = small_limits(file_bytes=32 * 1024, block_bytes=8 * 1024, spares=1)
RECORDS = [
    [hard(1, 1), entries(1, 1, 0, 1, [b"hello"])],
    [hard(2, 7, 3), entries(1, 1, 1, 2, [b"x" * 600, b""]), checkpoint(1, 1, 1)],
]


def to_hex(data: bytes) -> str:
    """Rows of 32 bytes with their offset; rows of zeros left out."""
    rows = [(at, data[at : at + 32]) for at in range(0, len(data), 32)]
    lines = [f"{at:06x}  {row.hex(' ', 4)}\n" for at, row in rows if any(row)]
    return f"# {len(data)} bytes\n" + "".join(lines)


def from_hex(text: str) -> bytes:
    first, *lines = text.splitlines()
    data = bytearray(int(first.split()[1]))
    for line in lines:
        at, _, row = line.partition("  ")
        piece = bytes.fromhex(row)
        data[int(at, 16) : int(at, 16) + len(piece)] = piece
    return bytes(data)


def golden(name: str) -> bytes:
    """The golden bytes. (A new format version's file is made with ``to_hex`` by hand, once.)"""
    return from_hex((GOLDEN / f"{name}.hex").read_text())


def test_journal_version_0() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = Model()
    for records in RECORDS:
        journal.append(records)
        model.told(records)
    journal.idle()
    journal.close()
    first = vfs.files()[0]
    expected = golden("journal-0")
    assert to_hex(vfs.peek(first)) == to_hex(expected)
    for path in vfs.files():
        vfs.poke(path, 0, bytes(LIMITS.journal_file_bytes))
    vfs.poke(first, 0, expected)
    _, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert model.matches(recovery) == ""
    assert not recovery.findings


def test_checkpoint_version_0() -> None:
    vfs = SimVfs()
    make_group_dir(vfs, 12)
    write_head(vfs, 12, b"old head", journal_lsn=34)
    expected = golden("checkpoint-0")
    assert vfs.peek("groups/12/HEAD.a") == expected == vfs.peek("groups/12/HEAD.b")
    assert [copy.content for copy in read_heads(vfs, 12)[0]] == [b"old head"] * 2


def test_identity_version_0() -> None:
    founding = (FoundingNode("näme", "0123456789abcdef", 1),)
    identity = Identity(
        "näme",
        "0123456789abcdef",
        2,
        "cluster",
        41,
        "fedcba9876543210",
        "00ff" * 8,
        True,
        founding,
        1234,
        1200,
        "10.0.0.2: why",
    )
    expected = golden("identity-0")
    assert encode(identity) == expected
    assert decode(expected, "IDENTITY") == identity
