"""Messages whose way is told, at the stream they came to: what is said of them, and of those that are only tried."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from jetstore.errors import ApiError
from jetstore.model.api_errors import api_error
from jetstore.model.transforms import SubjectTransform
from jetstore.node import pub_ack
from jetstore.node.ports import Inbound
from jetstore.stream import headers
from jetstore.stream.outcomes import BatchEnded, Duplicate
from jetstore.stream.retention import is_wanted
from jetstore.stream.trial import trial
from jetstore.types import Nanos

if TYPE_CHECKING:
    from jetstore.node.stream_group import StreamGroup

_UNFOLLOWED: Final = b"trace disabled"
_DUPLICATE: Final = "msgid is duplicate"
_STORE_FAILED: Final = 10077
_TEXTS: Final = {10054: "maximum payload exceeded", 10166: "message TTL disabled"}
_AS_DESCRIBED: Final = frozenset((10060, 10111, _STORE_FAILED))
"""Reasons that traces tell without their number."""


class TracedReply(bytes):
    """The reply subject of such a message, on its way through the log; it knows whom to tell."""

    told: Callable[[str, bool, str], None]
    subject: bytes
    """That it is stored on."""
    is_unwanted: bool
    """Nobody is interested in it."""
    header: bytes

    def tell(self, outcome: Duplicate | ApiError | BatchEnded | None) -> None:
        """The end of the story here."""
        if isinstance(outcome, ApiError):
            is_late = outcome.err_code == _STORE_FAILED
            self.told(_text(self.subject) if is_late else "", is_late and self.is_unwanted, self._problem(outcome))
        elif outcome is None:
            self.told(_text(self.subject), self.is_unwanted, "")
        else:
            self.told("", False, _DUPLICATE)

    def tell_refusal(self, pub_ack: bytes) -> None:
        """The same for a message that was refused with this answer."""
        error = json.loads(pub_ack)["error"]
        self.tell(ApiError(error["code"], error["err_code"], error["description"]))

    def _problem(self, error: ApiError) -> str:
        last = error.description.rpartition(": ")[2]
        fields = headers.fields(self.header)
        if error.err_code == 10071:
            by_subject = fields.get(headers.EXPECTED_LAST_SUBJECT_SEQ)
            wanted = fields.get(headers.EXPECTED_LAST_SEQ, by_subject or b"").decode()
            return f"last sequence{' by subject' if by_subject else ''} mismatch: {wanted} vs {last}"
        if error.err_code == 10070:
            wanted = fields.get(headers.EXPECTED_LAST_MSG_ID, b"").decode("utf-8", "replace")
            return f'last msgid mismatch: "{wanted}" vs "{last}"'
        if error.err_code in _AS_DESCRIBED:
            return error.description
        return _TEXTS.get(error.err_code, f"{error.description} ({error.err_code})")


def followed(
    group: StreamGroup, batch: Inbound, transform: SubjectTransform | None, told: Callable[[str, bool, str], None]
) -> TracedReply:
    """The reply subject of a run of one message, to be put in the place of its own."""
    subject, cut = batch.subjects[0], batch.header_lens[0]
    if transform is not None:
        subject = transform.apply(subject) or subject
    reply = TracedReply(batch.replies[0])
    reply.told, reply.subject = told, subject
    reply.is_unwanted = group.stream.settings.is_interest and not is_wanted(group.stream, subject)
    reply.header = batch.payloads[0][:cut]
    return reply


def stored_form(batch: Inbound, reply: bytes) -> Inbound:
    """The message as it is stored: nobody follows it when it is delivered later."""
    cut, payload = batch.header_lens[0], batch.payloads[0]
    header = headers.replaced(headers.storable(payload[:cut]), b"Nats-Trace-Dest", _UNFOLLOWED)
    return replace(batch, replies=[reply], header_lens=[len(header)], payloads=[header + payload[cut:]], trace=None)


def answer_of(stream: str, place: bytes, outcome: Duplicate | ApiError | BatchEnded) -> bytes:
    """The PubAck of a message that was tried, and would not be stored."""
    if isinstance(outcome, Duplicate):
        return b'{"stream":"%b","seq":%d,"duplicate": true}' % (place, outcome.seq)
    return pub_ack.refused(stream, outcome) if isinstance(outcome, ApiError) else b""


def _text(subject: bytes) -> str:
    return subject.decode("utf-8", "replace")


def tried(group: StreamGroup, batch: Inbound, subject: bytes) -> Duplicate | ApiError | BatchEnded | None:
    """Why the message would not be stored; None: it would be, if there is room for it."""
    cut, payload = batch.header_lens[0], batch.payloads[0]
    if cut > group.limits.header_bytes_max:
        return api_error("JSStreamHeaderExceedsMaximumErr")
    now_ns = Nanos(max(group.clock.wall_ns(), group.stream.contents.last_time_ns + 1))
    return group.refusal() or trial(group.stream, subject, cut, payload, now_ns)
