"""What the two sides of a catch-up say to each other: small JSON objects in a checked frame, and who carries them.

Requests and their answers are messages. Streams are plain bytes, cut anywhere into chunks: records of a range
(``store/install_records.py``), or the bytes of a state that an answer described. Source: ``docs/format/catch-up.md``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from struct import Struct
from typing import Any, Protocol

from jetstore.errors import Corruption, FormatUnknown, JetstoreError
from jetstore.hot.crc import crc32c
from jetstore.limits import KIB, MIB

BEGIN = "catch_up.begin"
"""Request: where the peer's state stands."""
RANGE = "catch_up.range"
"""Stream: the records of a closed range."""
TAKE = "catch_up.take"
"""Request: take the state as of now, to be fetched; it brings the records behind a sequence with it."""
STATE = "catch_up.state"
"""Stream: the bytes of a state that was taken, from an offset."""
DONE = "catch_up.done"
"""Request: the state is not needed any more."""

CHUNK_BYTES = MIB
"""No chunk of a stream is larger."""
READ_BYTES = 256 * KIB
"""Read and verified between two turns of the event loop."""
TAIL_BYTES = 4 * MIB
"""Records that a state may bring with it: if more were stored since the last range, that is fetched as a range."""
MESSAGE_BYTES_MAX = 64 * KIB
"""A request or answer; above: refused."""

_HEAD = Struct("<2sBBII")
"""magic, version, 0, length of the JSON, its crc32c."""
_MAGIC = b"JC"
_VERSION = 0


class PeerRefused(JetstoreError):
    """The peer cannot help now: it does not have the group, or not what was asked for. Ask again, or another one."""


class Peer(Protocol):
    """Another member, over whatever link. Both raise ``OSError`` or ``PeerRefused`` when it does not answer."""

    async def request(self, method: str, payload: bytes) -> bytes:
        """Its answer."""

    def stream(self, method: str, payload: bytes) -> AsyncIterator[bytes]:
        """Chunks of its answer, with back pressure."""


def encode(fields: Mapping[str, Any]) -> bytes:  # Any: JSON values
    """A request or an answer."""
    body = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()
    return _HEAD.pack(_MAGIC, _VERSION, 0, len(body), crc32c(body)) + body


def decode(data: bytes) -> dict[str, Any]:  # Any: JSON values
    """The fields of a message. Raises ``Corruption``, ``FormatUnknown``, or ``PeerRefused`` if it says so."""
    if not _HEAD.size <= len(data) <= MESSAGE_BYTES_MAX:
        raise Corruption("length of a catch-up message", file="peer", offset=0, actual=len(data))
    magic, version, zero, length, crc = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if magic != _MAGIC or version != _VERSION or zero:
        raise FormatUnknown("catch-up message", file="peer", offset=0, expected=_VERSION, actual=version)
    if length != len(body) or crc32c(body) != crc:
        raise Corruption("catch-up message", file="peer", offset=_HEAD.size)
    try:
        fields = json.loads(body)
    except ValueError:
        raise Corruption("catch-up message is not JSON", file="peer", offset=_HEAD.size) from None
    if not isinstance(fields, dict):
        raise Corruption("catch-up message is no object", file="peer", offset=_HEAD.size)
    if "refused" in fields:
        raise PeerRefused(str(fields["refused"]))
    return fields


_POSITION: dict[str, type] = {"index": int, "term": int, "first_seq": int, "last_seq": int}
_ANSWERS: dict[str, dict[str, type]] = {
    BEGIN: _POSITION,
    TAKE: _POSITION | {"is_behind": bool},
    DONE: {},
}
_TAKEN: dict[str, type] = {"session": int, "head_bytes": int, "head_hash": str, "parts": list, "tail_bytes": int}


def checked(method: str, fields: dict[str, Any]) -> dict[str, Any]:  # Any: JSON values
    """An answer that has what an answer to this request has. Raises ``FormatUnknown``."""
    expected = _ANSWERS[method]
    if method == TAKE and fields.get("is_behind") is False:
        expected = expected | _TAKEN
    for name, kind in expected.items():
        if not isinstance(fields.get(name), kind):
            raise FormatUnknown(f"{name} in an answer to {method}", file="peer", offset=0, actual=fields.get(name))
    return fields


def refusal(why: str) -> bytes:
    """The answer of a peer that cannot help."""
    return encode({"refused": why})
