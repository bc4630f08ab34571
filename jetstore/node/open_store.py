"""Opening a store, the same for a real server and a simulated one: identity first, then the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jetstore.errors import Corruption, OperatingError
from jetstore.limits import Limits
from jetstore.node.link.peer_memory import boot_told
from jetstore.store.checkpoint_files import newest_journal_block
from jetstore.store.identity import Identity, open_identity, read_identity, save_identity
from jetstore.store.journal.append import Journal
from jetstore.store.journal.files import JOURNAL_DIR
from jetstore.store.journal.recovery import open_journal
from jetstore.store.key_file import open_keys
from jetstore.store.keys import Encryption
from jetstore.store.mixed import check_beginning, drop_leftovers
from jetstore.store.ports import JournalRecovery
from jetstore.store.vfs import Vfs


def open_store(
    vfs: Vfs, limits: Limits, node_name: str, draw: Callable[[int], bytes], encryption: Encryption | None = None
) -> tuple[Journal, JournalRecovery, Identity]:
    """The open journal, what it proves, and who this node is. ``draw(n)`` gives n random bytes.

    From now on ``vfs`` has the store's keys, if it is encrypted.

    Raises Corruption if what must be there is gone (a journal that was born and is missing: a lone voter has nobody
    to learn from, so it does not found an empty store over a lost one); OperatingError, nothing changed, if the cluster
    has refused this disk before, or if ``encryption`` does not fit the store.
    """
    known, _ = read_identity(vfs)
    if known is not None and known.disowned:
        raise OperatingError(disowned_text(known))
    is_new = known is None and not vfs.exists(JOURNAL_DIR)
    keys, notes = open_keys(vfs, encryption, draw, is_new=is_new, check_beginning=lambda: check_beginning(vfs, limits))
    vfs.keys = keys
    if keys is not None and keys.is_due:
        drop_leftovers(vfs, keys.newest)
    identity, findings = open_identity(vfs, node_name, draw)
    findings += notes
    said, _ = newest_journal_block(vfs)
    least_lsn = least_journal_block(said, identity)
    journal, recovery = open_journal(vfs, limits, identity.journal_id_bytes, least_lsn)
    recovery.findings[:0] = findings
    if recovery.is_new and identity.journal_born:
        journal.close()
        raise Corruption(
            "the journal of this store is gone; put it back, or export what is readable with `jetstore recover`",
            file="journal",
            offset=0,
        )
    # Only now: an older journal has said so of itself, durably, in its new table. What the heads named is judged.
    # An older IDENTITY was put back if the journal tells of this life, or a later one.
    identity = replace(
        identity,
        boot_counter=max(identity.boot_counter, 1 + boot_told(recovery.peers, identity.node_id, identity.incarnation)),
        journal_born=True,
        journal_lsn=journal.position.lsn,
        excused_lsn=max(identity.excused_lsn, said),
    )
    save_identity(vfs, identity)
    return journal, recovery, identity


def least_journal_block(said: int, identity: Identity) -> int:
    """The block that the journal reaches if it is no older one: what IDENTITY and the groups' heads (``said``) say."""
    return max(identity.journal_lsn, said if said > identity.excused_lsn else 0)


def disowned_text(identity: Identity) -> str:
    """Why nothing is served from this store any more, and what to do."""
    return (
        f"this store is an old or cloned copy of what node {identity.node_name} had, its cluster refuses it"
        f" ({identity.disowned}): put the right disk back, or start with an empty store directory"
    )


def check_mode(identity: Identity, recovery: JournalRecovery, *, is_clustered: bool) -> None:
    """Nothing, if this store may be served so. Raises OperatingError, nothing changed.

    Groups of a lone server have members that no other node knows; groups of a cluster need their other members.
    """
    if is_clustered and not identity.cluster_id and recovery.groups:
        raise OperatingError(
            "this store belongs to a standalone server: a cluster cannot take it over; start without a cluster port,"
            " or with an empty store directory"
        )
    if not is_clustered and identity.cluster_id:
        raise OperatingError(
            f"this store belongs to node {identity.node_name} of cluster {identity.cluster_id}: it cannot be served"
            " alone; start with the cluster's port, name and routes, or with an empty store directory"
        )
