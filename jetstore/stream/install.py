"""A stream built from what a peer's stream is: logical head, its parts, and a log that holds the records.

The result is a state and its first checkpoint. The checkpoint leaves the subject index to be made again from the log
at an opening: only the head that is being written knows the stamp that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from jetstore.errors import Corruption, FormatUnknown
from jetstore.limits import Limits
from jetstore.store.ports import Checkpoint, MessageLog, SubjectIndex
from jetstore.store.seqset import SeqSet
from jetstore.stream.checkpoint import Part, fill
from jetstore.stream.dedupe import Dedupe
from jetstore.stream.logical import DELETED_PART, TTL_PART, check_parts, decode_head, decode_removed
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid

_EXPECTED = {"uid", "parts", "index", "term", "config", "messages", "bytes", "first_seq", "last_seq", "ids"}


class PeerState:
    """A peer's logical head with its parts, verified."""

    def __init__(self, uid: GroupUid, head: bytes, parts: Mapping[str, bytes]) -> None:
        """Raises ``Corruption`` or ``FormatUnknown`` if they do not belong together or are another group's."""
        self.fields = decode_head(head)
        if not self.fields.keys() >= _EXPECTED:
            raise FormatUnknown("logical head", file="logical head", offset=0, expected=sorted(_EXPECTED))
        if self.fields["uid"] != uid:
            raise Corruption("head of another group", file="logical head", offset=0, expected=uid)
        check_parts(self.fields, parts)
        self._parts = parts
        self.removed: SeqSet = decode_removed(parts[DELETED_PART])
        """Removed and skipped sequences from ``first_seq`` to ``last_seq``."""

    def __getitem__(self, name: str) -> Any:  # Any: a JSON value
        """A field of the head."""
        return self.fields[name]

    @property
    def storage(self) -> str:
        """How stored sizes are counted."""
        config = self.fields["config"]
        return str(config.get("storage", "file")) if config is not None else "file"

    @property
    def first_seq(self) -> int:
        """First live sequence; ``last_seq + 1`` when empty."""
        return int(self.fields["first_seq"])

    @property
    def last_seq(self) -> int:
        """Last sequence ever given."""
        return int(self.fields["last_seq"])


def build(state: PeerState, log: MessageLog, limits: Limits, *, number: int, stamp: int) -> tuple[Stream, Checkpoint]:
    """The stream over a log that holds its records, and its checkpoint. Give it its index before it is used.

    ``number`` makes names of chunks unique, ``stamp`` is above every stamp of the index so far.
    Raises ``Corruption`` or ``FormatUnknown`` as the state does.
    """
    uid = GroupUid(state["uid"])
    stream = Stream(uid, log, cast(SubjectIndex, _IndexToBe(stamp)), limits)
    stream.install_number = number
    parts = state._parts
    try:
        names = [Dedupe.chunk_name(count, length) for count, length in state["ids"]]
        fill(stream, state.fields, {name: parts[name] for name in names}, parts.get(TTL_PART, b""))
    except (KeyError, TypeError, ValueError) as error:  # intact bytes that another version made
        raise FormatUnknown(f"logical head: {error!r}", file=f"group {uid}", offset=0) from error
    return stream, stream.checkpoint(stream.applied_term)


class _IndexToBe:
    """Stands where the index will be, and says in the checkpoint that it is to be rebuilt."""

    def __init__(self, stamp: int) -> None:
        self._stamp = stamp

    def capture(self) -> Part:
        return Part({"stamp": self._stamp, "previous": 0, "chunk": ""}, {}, frozenset(), {})
