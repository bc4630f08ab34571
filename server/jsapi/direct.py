"""DIRECT.GET: stored messages as plain messages with headers, statuses instead of JSON errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from jetstore.errors import ApiError, Corruption, DiskFull, NotNow
from jetstore.model.json import DecodeError, decode_fields
from jetstore.model.subjects import is_valid_subject
from jetstore.model.times import format_time
from jetstore.store.ports import Message
from server.jsapi.messages import MessageGetRequest
from server.jsapi.request import Backend, Request, is_empty_body

_NO_MESSAGE: Final = 10037


@dataclass(slots=True)
class Replies:
    """Messages to send, as columns."""

    subjects: list[bytes] = field(default_factory=list)
    header_lens: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)

    def add(self, subject: bytes, header: bytes, data: bytes = b"") -> None:
        """One more message."""
        self.subjects.append(subject)
        self.header_lens.append(len(header))
        self.payloads.append(header + data)


class _Status(Exception):
    """The status line to answer with."""


def status_header(status: str, extra: str = "") -> bytes:
    """A header block that is only a status (and ``extra`` header lines, each ending in CRLF)."""
    return f"NATS/1.0 {status}\r\n{extra}\r\n".encode()


def _message_header(stream: str, message: Message, extra: bytes) -> bytes:
    start = message.header[:-2] if message.header else b"NATS/1.0\r\n"
    return b"%bNats-Stream: %b\r\nNats-Subject: %b\r\nNats-Sequence: %d\r\nNats-Time-Stamp: %b\r\n%b\r\n" % (
        start,
        stream.encode(),
        message.subject,
        message.seq,
        format_time(message.time_ns).encode(),
        extra,
    )


def _check(asked: MessageGetRequest) -> None:
    if not (asked.seq or asked.last_by_subj or asked.next_by_subj or asked.start_time or asked.multi_last):
        raise _Status("408 Empty Request")
    conflicts = (
        asked.seq and asked.last_by_subj,
        asked.seq and asked.start_time,
        asked.start_time and asked.last_by_subj,
        asked.last_by_subj and (asked.next_by_subj or asked.batch or asked.multi_last),
        asked.next_by_subj and asked.multi_last,
        asked.up_to_seq and asked.up_to_time,
    )
    if any(conflicts):
        raise _Status("408 Bad Request")


def _decode(request: Request) -> MessageGetRequest:
    try:
        fields = decode_fields(MessageGetRequest, request.body, "JSApiMsgGetRequest", strict=False)
    except DecodeError:
        raise _Status("408 Malformed Request") from None
    return MessageGetRequest(**fields)


def _asked(request: Request) -> MessageGetRequest:
    if len(request.names) == 1:
        if is_empty_body(request.body):
            raise _Status("408 Empty Request")
        asked = _decode(request)
        _check(asked)
        return asked
    subject = ".".join(request.names[1:])
    no_hdr = False
    if request.body:
        asked = _decode(request)
        no_hdr = asked.no_hdr
        if asked != MessageGetRequest(no_hdr=no_hdr):
            raise _Status("408 Bad Request")
    if not is_valid_subject(subject):
        raise _Status("404 Message Not Found")
    return MessageGetRequest(last_by_subj=subject, no_hdr=no_hdr)


async def direct_get(backend: Backend, request: Request, replies: Replies) -> None:
    """Answer one request into ``replies``: the message(s), or one status."""
    stream = backend.node.direct_reader(request.names[0])
    if not stream:
        if getattr(request.client, "no_responders", True):  # as any other request that nobody takes
            asked_on = request.subject.decode("utf-8", "replace")
            replies.add(request.reply, status_header("503", f"Nats-Subject: {asked_on}\r\n"))
        return
    try:
        asked = _asked(request)
        if asked.batch > 0 or asked.multi_last:
            await _batch(backend, request, stream, asked, replies)
            return
        message = await backend.node.direct_get(stream, asked.to_value())
    except _Status as status:
        replies.add(request.reply, status_header(str(status)))
    except ApiError as error:
        replies.add(request.reply, status_header(_status_of(error, multi=False)))
    except (NotNow, DiskFull, Corruption) as error:
        replies.add(request.reply, status_header(_trouble(error)))
    else:
        header = b"" if asked.no_hdr else _message_header(stream, message, b"")
        replies.add(request.reply, header, message.data)


async def _batch(backend: Backend, request: Request, stream: str, asked: MessageGetRequest, replies: Replies) -> None:
    is_multi = bool(asked.multi_last)
    try:
        messages, matched, up_to_seq = await backend.node.direct_get_batch(stream, asked.to_value())
    except ApiError as error:
        replies.add(request.reply, status_header(_status_of(error, multi=is_multi)))
        return
    if not messages:
        replies.add(request.reply, status_header("404 No Results" if is_multi else "404 Message Not Found"))
        return
    previous = 0
    for i, message in enumerate(messages):
        if asked.no_hdr and not is_multi:
            replies.add(request.reply, b"", message.data)
        else:
            extra = b"Nats-Num-Pending: %d\r\nNats-Last-Sequence: %d\r\n" % (matched - i - 1, previous)
            replies.add(request.reply, _message_header(stream, message, extra), message.data)
        previous = message.seq
    extra_text = f"Nats-Num-Pending: {matched - len(messages)}\r\nNats-Last-Sequence: {previous}\r\n"
    if is_multi:
        extra_text += f"Nats-UpTo-Sequence: {up_to_seq}\r\n"
    replies.add(request.reply, status_header("204 EOB", extra_text))


def _status_of(error: ApiError, *, multi: bool) -> str:
    if error.err_code == _NO_MESSAGE:
        return "404 No Results" if multi else "404 Message Not Found"
    if error.code == 413:
        return "413 Too Many Results"
    return f"{error.code} {error.description}"


def _trouble(error: Exception) -> str:
    return "500 Stored Message Damaged" if isinstance(error, Corruption) else "503 Temporarily Unavailable"
