"""The consumers by which mirrors and sources take from streams that remove what is consumed.

Such a consumer belongs to the origin and says how far the copy is: it moves when copied messages are durable in the
mirror or the stream with the source, and not before, so at every moment each message is in one of the two. Nothing is
delivered for it. It bears the name of one mirror or source of one stream, and goes when that does.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from jetstore.consumer.entries import encode_cursor, encode_delete, encode_set
from jetstore.consumer.state import ConsumerState
from jetstore.errors import NotNow
from jetstore.meta.stream_key import account_of, stream_key
from jetstore.model.consumer import AckPolicy, ConsumerConfig, DeliverPolicy
from jetstore.model.source_checks import MIRROR_KEY, origin_keys
from jetstore.types import GroupUid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jetstore.node.stream_group import StreamGroup

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MAX_ACK_PENDING = 1_000
_HEARTBEAT_NS = 1_000_000_000
_OWNER = ("_nats.mirror.stream", "_nats.src.stream")
_ACCOUNT = ("_nats.mirror.acc", "_nats.src.acc")


class SourcedEngine:
    """In the place of an engine: whoever copies moves this consumer, nothing is delivered."""

    num_waiting = 0
    paused_until_ns = 0

    def __init__(self, state: ConsumerState) -> None:
        """Of a consumer with ``sourcing``."""
        self.name = state.name
        self.state = state
        self._holder: object | None = None

    @property
    def is_bound(self) -> bool:
        """Whether a mirror or source takes its messages."""
        return self.state.config.sourcing or self._holder is not None

    def bind(self, holder: object) -> bool:
        """Let one have it; False: it is another's."""
        if self._holder not in (None, holder):
            return False
        self._holder = holder
        return True

    def let_go(self, holder: object) -> None:
        """It had it, perhaps, and does no more."""
        if self._holder is holder:
            self._holder = None

    def start(self) -> None:
        """Nothing to begin."""

    def stop(self, line: bytes = b"", *, is_deleted: bool = False) -> None:
        """Nothing to end."""

    def on_applied(self) -> None:
        """Nothing to deliver."""


def _token(uid: GroupUid, key: str) -> str:
    number = int.from_bytes(hashlib.sha256(f"{uid} {key}".encode()).digest()[:8], "big")
    return "".join(_DIGITS[number // 62**place % 62] for place in range(8))


def sourced_consumer_name(uid: GroupUid, key: str) -> str:
    """The name of the consumer of a stream's mirror or source, the same after every restart."""
    return ("JS_MIRROR_" if key == MIRROR_KEY else "JS_SRC_") + _token(uid, key)


def deliver_subject(uid: GroupUid, key: str, prefix: str = "") -> str:
    """On which a mirror's or source's consumer would deliver; ``prefix``: of an origin in another account."""
    return f"{prefix or '$JS'}.{'M' if key == MIRROR_KEY else 'S'}.{_token(uid, key)}"


def encode_sourced_consumer(
    copy: StreamGroup, key: str, patterns: Sequence[str], prefix: str, position: int, now_ns: int
) -> bytes:
    """The entry that makes the consumer, behind what is copied already: nothing up to ``position`` is settled by it."""
    is_mirror = key == MIRROR_KEY
    kind, name = "mirror" if is_mirror else "src", sourced_consumer_name(copy.uid, key)
    filters = () if list(patterns) == [">"] else tuple(patterns)
    config = ConsumerConfig(
        durable_name=name,
        name=name,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE if position else DeliverPolicy.ALL,
        opt_start_seq=position + 1 if position else 0,
        ack_policy=AckPolicy.FLOW_CONTROL,
        max_deliver=-1,
        filter_subject=filters[0] if len(filters) == 1 else "",
        filter_subjects=filters if len(filters) > 1 else (),
        max_ack_pending=_MAX_ACK_PENDING,
        flow_control=True,
        deliver_subject=deliver_subject(copy.uid, key, prefix),
        idle_heartbeat=_HEARTBEAT_NS,
        sourcing=True,
        metadata={
            f"_nats.{kind}.acc": account_of(copy.key),
            f"_nats.{kind}.stream": copy.name,
            "_nats.req.level": "4",
        },
    )
    return encode_set(name, now_ns, config.to_json())


def encode_settled(state: ConsumerState, seq: int, now_ns: int) -> bytes:
    """The entry that says: all of it up to this sequence is durable in the copy."""
    count = state.cursor.count_until(state.view, state.subject_filter, seq)
    return encode_cursor(state.name, state.generation, now_ns, state.delivered.consumer_seq + count, seq)


def remove_abandoned(origin: StreamGroup) -> bool:
    """Delete consumers of mirrors and sources that are no more; whether any are left, or it is not known yet."""
    left = False
    for name, state in origin.stream.consumers.items():
        if not state.config.sourcing:
            continue
        metadata = state.config.metadata
        owner = next((metadata[each] for each in _OWNER if each in metadata), "")
        account = next((metadata[each] for each in _ACCOUNT if each in metadata), account_of(origin.key))
        try:
            found = origin.assigned(stream_key(account, owner))
            names = set()
            if found is not None:
                uid, config = found
                names = {sourced_consumer_name(uid, key) for key in origin_keys(config)}
            if name not in names:
                origin.propose_with(encode_delete(name, origin.now_ns(), state.generation), None)
        except NotNow:
            pass
        left = True
    return left
