"""Bodies of the frames of a bulk connection. Pure; little-endian; ``docs/format/link.md``.

::

    REQUEST   id (4) · window (4, 0 = one answer, else a stream) · length of method (1) · method · payload
    RESPONSE  id (4) · payload            CHUNK   id (4) · payload          END     id (4)
    ERROR     id (4) · what (1) · code (4) · text
    CREDIT    id (4) · bytes (4)          CANCEL  id (4)

Ids are given by whoever asks, per connection; both sides ask independently.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from jetstore.node.link.frames import FrameError, Kind
from jetstore.types import Buffer

_REQUEST = struct.Struct("<IIB")
_ID = struct.Struct("<I")
_ERROR = struct.Struct("<IBI")
_CREDIT = struct.Struct("<II")

METHOD_BYTES_MAX = 255
TEXT_BYTES_MAX = 4096
CHUNK_COST_BYTES = 64
"""What a chunk costs of the window beside its bytes: bounds the number of small ones."""

Outgoing = tuple[Kind, Sequence[Buffer]]


class ErrorKind(IntEnum):
    """What an ERROR frame promises."""

    REFUSED = 1
    """Definitely not done."""
    FAILED = 2
    """The outcome is unknown."""


class Request(NamedTuple):
    """A REQUEST frame."""

    id: int
    window_bytes: int
    method: str
    payload: bytes


class Error(NamedTuple):
    """An ERROR frame."""

    id: int
    kind: ErrorKind
    code: int
    text: str


def request(request_id: int, window_bytes: int, method: str, payload: Buffer) -> Outgoing:
    """ValueError if the method's name is too long."""
    name = method.encode()
    if not 0 < len(name) <= METHOD_BYTES_MAX:
        raise ValueError(f"method name of {len(name)} bytes")
    return Kind.REQUEST, [_REQUEST.pack(request_id, window_bytes, len(name)) + name, payload]


def response(request_id: int, payload: Buffer) -> Outgoing:
    """The one answer."""
    return Kind.RESPONSE, [_ID.pack(request_id), payload]


def chunk(request_id: int, payload: Buffer) -> Outgoing:
    """A piece of a stream."""
    return Kind.CHUNK, [_ID.pack(request_id), payload]


def end(request_id: int) -> Outgoing:
    """The stream is complete."""
    return Kind.END, [_ID.pack(request_id)]


def error(request_id: int, kind: ErrorKind, code: int, text: str) -> Outgoing:
    """No answer, or no more of the stream. Texts are cut at ``TEXT_BYTES_MAX``."""
    return Kind.ERROR, [_ERROR.pack(request_id, kind, code & 0xFFFF_FFFF) + text.encode()[:TEXT_BYTES_MAX]]


def credit(request_id: int, size: int) -> Outgoing:
    """So much more may be sent."""
    return Kind.CREDIT, [_CREDIT.pack(request_id, size)]


def cancel(request_id: int) -> Outgoing:
    """Nobody wants the answer."""
    return Kind.CANCEL, [_ID.pack(request_id)]


def read_request(body: memoryview) -> Request:
    """FrameError: no such body. The payload is copied out of it."""
    if len(body) < _REQUEST.size:
        raise FrameError("short REQUEST")
    request_id, window_bytes, name_size = _REQUEST.unpack_from(body)
    at = _REQUEST.size + name_size
    if not name_size or at > len(body):
        raise FrameError("short REQUEST")
    try:
        method = bytes(body[_REQUEST.size : at]).decode()
    except UnicodeDecodeError:
        raise FrameError("method name is not text") from None
    return Request(request_id, window_bytes, method, bytes(body[at:]))


def read_payload(body: memoryview) -> tuple[int, bytes]:
    """RESPONSE and CHUNK: id and payload (copied)."""
    return read_id(body), bytes(body[_ID.size :])


def read_id(body: memoryview) -> int:
    """The id at the start of any of these bodies."""
    if len(body) < _ID.size:
        raise FrameError("short frame of a bulk connection")
    request_id: int = _ID.unpack_from(body)[0]
    return request_id


def read_bare_id(body: memoryview) -> int:
    """END and CANCEL: an id and nothing else."""
    if len(body) != _ID.size:
        raise FrameError("END or CANCEL of a wrong size")
    return read_id(body)


def read_error(body: memoryview) -> Error:
    """ERROR."""
    if len(body) < _ERROR.size:
        raise FrameError("short ERROR")
    request_id, kind, code = _ERROR.unpack_from(body)
    if kind not in tuple(ErrorKind):
        raise FrameError(f"unknown kind of ERROR ({kind})")
    return Error(request_id, ErrorKind(kind), code, bytes(body[_ERROR.size :]).decode(errors="replace"))


def read_credit(body: memoryview) -> tuple[int, int]:
    """CREDIT: id and bytes."""
    if len(body) != _CREDIT.size:
        raise FrameError("CREDIT of a wrong size")
    request_id, size = _CREDIT.unpack(body)
    return request_id, size
