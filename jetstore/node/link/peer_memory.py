"""What each peer said of its life and its disk: a peer that goes back has an old or a cloned disk. Pure.

A node counts up its boot counter durably before it says anything, draws a nonce per boot, and reports the last durable
block of its journal. So the triple never goes back unless the disk did. Source: STORAGE, old or cloned disks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

_ROW = struct.Struct("<8sIQ8sQ")
ROWS_MAX = 64
"""Nodes that the journal remembers, this one included: 36 bytes each, twice in every block."""


class Sighting(NamedTuple):
    """What a peer says of itself. Compared field by field, never as a tuple."""

    incarnation: int
    """A new one (``jetstore rejoin``) owes nothing to what was promised under the old one."""
    boot_counter: int
    boot_nonce: str
    durable_lsn: int


class Verdict(Enum):
    """How a sighting goes with what is remembered."""

    NEW = "new"
    RESTARTED = "restarted"
    SAME_LIFE = "same life"
    """A reconnect, from any address."""
    OVERTAKEN = "overtaken"
    """A later life of the node was seen since it was asked: words of a dead process, no contradiction."""
    OLD_DISK = "old disk"
    """Nothing it says may be counted."""


@dataclass(slots=True)
class Alarm:
    """The last contradiction of one peer."""

    text: str
    count: int = 1


def contradiction(known: Sighting | None, said: Sighting) -> str:
    """Why the disk that says this now cannot be the one that said ``known`` before; "" if it can."""
    if known is None or said.incarnation > known.incarnation:
        return ""
    if said.incarnation < known.incarnation:
        return f"incarnation {said.incarnation}, but {known.incarnation} was seen before"
    if said.boot_counter < known.boot_counter:
        return f"boot {said.boot_counter}, but boot {known.boot_counter} was seen before"
    if said.boot_counter == known.boot_counter and said.boot_nonce != known.boot_nonce:
        return f"boot {said.boot_counter} with two nonces ({known.boot_nonce}, then {said.boot_nonce})"
    if said.durable_lsn < known.durable_lsn:
        return f"journal ends at block {said.durable_lsn}, but block {known.durable_lsn} was durable before"
    return ""


class PeerMemory:
    """The highest sighting of each node. Bounded by ``peers_max``: above it unknown nodes are not taken.

    What a peer says is judged against what was remembered *when it was asked* (``snapshot``): words that were on
    their way on several connections may arrive in any order, and that is no contradiction.
    """

    def __init__(
        self,
        peers_max: int,
        remembered: Iterable[tuple[str, Sighting]] = (),
        own: tuple[str, Sighting] | None = None,
    ) -> None:
        """``remembered``: rows of an earlier life of this node, in any order; the highest counts.

        ``own``: this node in this life, for the journal: it stands for IDENTITY if that goes back.
        """
        self.peers_max = peers_max
        self._own = [own] if own is not None else []
        self._has_changed = own is not None
        self._highest: dict[str, Sighting] = {}
        self.alarms: dict[str, Alarm] = {}
        """By node id; stays until the peer is seen in a later life."""
        for node_id, sighting in remembered:
            if not contradiction(self._highest.get(node_id), sighting):
                self._highest[node_id] = sighting

    def snapshot(self) -> Mapping[str, Sighting]:
        """What is remembered now; taken when a peer is asked who it is."""
        return dict(self._highest)

    def observe(self, node_id: str, said: Sighting, as_of: Mapping[str, Sighting]) -> Verdict:
        """Judge and, unless it is OVERTAKEN or OLD_DISK, remember. ``alarms`` says why it is OLD_DISK."""
        text = contradiction(as_of.get(node_id), said)
        known = self._highest.get(node_id)
        if known is not None and not text:
            life, known_life = (said.incarnation, said.boot_counter), (known.incarnation, known.boot_counter)
            if life < known_life:
                return Verdict.OVERTAKEN
            if life == known_life and said.boot_nonce == known.boot_nonce:
                self.advance(node_id, said.durable_lsn)
                return Verdict.SAME_LIFE
            text = contradiction(known, said)
        if text:
            self.alarm(node_id, text)
            return Verdict.OLD_DISK
        self._highest.pop(node_id, None)
        self._highest[node_id] = said  # the one that was seen in a new life most recently is the last
        self._has_changed = True
        if known is None:
            return Verdict.NEW
        self.alarms.pop(node_id, None)
        return Verdict.RESTARTED

    def advance(self, node_id: str, durable_lsn: int) -> None:
        """The life that is remembered has made more blocks durable."""
        known = self._highest[node_id]
        if durable_lsn > known.durable_lsn:
            self._highest[node_id] = known._replace(durable_lsn=durable_lsn)
            self._has_changed = True

    def alarm(self, node_id: str, text: str) -> None:
        """A contradiction that was noticed within one connection."""
        alarm = self.alarms.get(node_id)
        self.alarms[node_id] = Alarm(text, alarm.count + 1 if alarm else 1)

    def has_room_for(self, node_id: str) -> bool:
        """Whether the node is known or may become so."""
        return node_id in self._highest or len(self._highest) < self.peers_max

    def highest(self, node_id: str) -> Sighting | None:
        """The highest sighting of a node."""
        return self._highest.get(node_id)

    def rows(self) -> list[tuple[str, Sighting]]:
        """Everything remembered, by node id."""
        return sorted(self._highest.items())

    def take_changes(self) -> bytes:
        """What the journal is to remember (``decode_rows``), or b"" if that is what was taken last.

        At most ``ROWS_MAX`` nodes: this one, and those that were seen in a new life most recently.
        """
        if not self._has_changed:
            return b""
        self._has_changed = False
        rows = self._own + list(self._highest.items())[len(self._own) - ROWS_MAX :]
        return b"".join(
            [
                _ROW.pack(bytes.fromhex(node_id), incarnation, boot_counter, bytes.fromhex(nonce), lsn)
                for node_id, (incarnation, boot_counter, nonce, lsn) in rows
            ]
        )


def boot_told(data: bytes, node_id: str, incarnation: int) -> int:
    """The latest life of a node that such rows tell of; 0: none of this incarnation."""
    told = [
        said.boot_counter for row_id, said in decode_rows(data) if (row_id, said.incarnation) == (node_id, incarnation)
    ]
    return max(told, default=0)


def decode_rows(data: bytes) -> list[tuple[str, Sighting]]:
    """Node ids and sightings, as ``PeerMemory.take_changes`` gave them. ValueError if it never did."""
    if len(data) % _ROW.size:
        raise ValueError(f"{len(data)} bytes about peers")
    return [
        (node_id.hex(), Sighting(incarnation, boot_counter, nonce.hex(), lsn))
        for node_id, incarnation, boot_counter, nonce, lsn in _ROW.iter_unpack(data)
    ]
