"""The bytes of a segment file before its footer: a head, then frames, each self-checking and bound to its place.

A frame's header names its sequences, time and lengths under a crc that is seeded with group uid, the segment's base
sequence and the frame's own offset, so a frame of another file, another offset or another life of the same stream name
is never taken for this one. Its payload (optional per-record columns, then the body of ``hot/frame.py``; all of it
compressed where the stream wants that and it gets smaller) has its crc, as it is stored, in the header. Frames stand
back to back; a segment without footer is read by following their lengths, and past damage by searching for the next
header that checks out.

Where the store is encrypted, payloads are sealed (``keys.py``) behind everything else, and so are footers.

Source: ``docs/format/segment.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from struct import Struct, pack, unpack_from

from jetstore.errors import Corruption, FormatUnknown
from jetstore.hot.columns import Frame
from jetstore.hot.crc import crc32c
from jetstore.hot.frame import decode_frame
from jetstore.store.compressed import compressed, expanded
from jetstore.store.keys import Keys, check_plain, opened
from jetstore.store.salvage import pread_salvaged
from jetstore.store.stored_frame import StoredFrame
from jetstore.store.vfs import Vfs

SEGMENT_VERSION = 0
_SEGMENT_HEAD = Struct("<4sB3xQQI")
"""magic, version, group uid, base sequence, crc of this head."""
_SEGMENT_MAGIC = b"JSEG"
SEGMENT_HEAD_BYTES = _SEGMENT_HEAD.size

_FRAME_HEAD = Struct("<2sBxIQqIII")
"""magic, flags, count, first_seq, base_time_ns, payload length, crc of the payload, crc of this header."""
_FRAME_MAGIC = b"JF"
FRAME_HEAD_BYTES = _FRAME_HEAD.size
_PLACE = Struct("<QQQ")

HAS_TIMES = 1
"""The payload starts with count × i64: the time of each record, in place of base time + position."""
HAS_SEQS = 2
"""Then count × u32: each record's sequence minus first_seq, in place of consecutive ones."""
COMPRESSED = 4
"""The payload is stored in the form of ``compressed.py``."""
SEALED = 8
"""The payload, in whatever form the other flags say, is sealed as ``keys.py`` does it."""
_KNOWN_FLAGS = HAS_TIMES | HAS_SEQS | COMPRESSED | SEALED

_SCAN_WINDOW_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FrameHead:
    """What a frame's header says, and where it stands."""

    offset: int
    flags: int
    count: int
    first_seq: int
    base_time_ns: int
    payload_bytes: int
    """As stored."""
    payload_crc: int

    @property
    def end(self) -> int:
        """Offset of what follows the frame."""
        return self.offset + FRAME_HEAD_BYTES + self.payload_bytes


@dataclass(frozen=True, slots=True)
class BadRange:
    """Sequences of a segment that cannot be read, and where they should stand in it."""

    first_seq: int
    last_seq: int
    offset: int
    what: str


def segment_head(uid: int, base_seq: int) -> bytes:
    """The first bytes of a segment file."""
    head = pack("<4sB3xQQ", _SEGMENT_MAGIC, SEGMENT_VERSION, uid, base_seq)
    return head + pack("<I", crc32c(head))


def check_segment_head(data: bytes, uid: int, base_seq: int, path: str) -> None:
    """Raises ``Corruption`` or ``FormatUnknown`` unless ``data`` starts with the head of this very segment."""
    if len(data) < SEGMENT_HEAD_BYTES or crc32c(data[: SEGMENT_HEAD_BYTES - 4]) != unpack_from("<I", data, 24)[0]:
        raise Corruption("segment head", file=path, offset=0)
    magic, version, found_uid, found_base, _ = _SEGMENT_HEAD.unpack_from(data)
    if magic != _SEGMENT_MAGIC or version != SEGMENT_VERSION:
        raise FormatUnknown("segment version", file=path, offset=0, expected=SEGMENT_VERSION, actual=version)
    if (found_uid, found_base) != (uid, base_seq):
        raise Corruption(
            "another segment's head", file=path, offset=0, expected=(uid, base_seq), actual=(found_uid, found_base)
        )


def frame_head(uid: int, base_seq: int, offset: int, first_seq: int, frame: Frame) -> bytes:
    """The header that goes before ``frame.body`` at this place: consecutive sequences, times base + position."""
    return _pack_head(
        uid, base_seq, offset, 0, frame.count, first_seq, frame.base_time_ns, len(frame.body), frame.body_crc
    )


def packed_frame_head(
    uid: int, base_seq: int, offset: int, first_seq: int, frame: Frame, flags: int, payload: bytes
) -> bytes:
    """The same where ``payload`` is the body in the form of ``flags`` (compressed, sealed)."""
    count, time_ns = frame.count, frame.base_time_ns
    return _pack_head(uid, base_seq, offset, flags, count, first_seq, time_ns, len(payload), crc32c(payload))


def moved_frame_head(head: FrameHead, uid: int, base_seq: int, offset: int) -> bytes:
    """The header of the same frame at another place."""
    return _pack_head(
        uid,
        base_seq,
        offset,
        head.flags,
        head.count,
        head.first_seq,
        head.base_time_ns,
        head.payload_bytes,
        head.payload_crc,
    )


def sparse_frame(
    uid: int,
    base_seq: int,
    offset: int,
    seqs: list[int],
    times: list[int],
    frame: Frame,
    *,
    is_compressing: bool = False,
    keys: Keys | None = None,
) -> tuple[list[bytes], int]:
    """Header and payload of a frame whose records have their own sequences (increasing) and times; its flags."""
    count = frame.count
    flags = HAS_TIMES
    extra = pack(f"<{count}q", *times)
    if seqs[-1] - seqs[0] != count - 1:
        flags |= HAS_SEQS
        extra += pack(f"<{count}I", *[seq - seqs[0] for seq in seqs])
    packed = compressed(extra + frame.body) if is_compressing else None
    if packed is not None:
        flags |= COMPRESSED
    if keys is not None:
        flags |= SEALED
        packed = keys.seal(extra + frame.body if packed is None else packed)
    if packed is not None:
        head = _pack_head(uid, base_seq, offset, flags, count, seqs[0], times[0], len(packed), crc32c(packed))
        return [head, packed], flags
    crc = crc32c(frame.body, crc32c(extra))
    size = len(extra) + len(frame.body)
    head = _pack_head(uid, base_seq, offset, flags, count, seqs[0], times[0], size, crc)
    return [head, extra, frame.body], flags


def _pack_head(
    uid: int, base_seq: int, offset: int, flags: int, count: int, first_seq: int, time_ns: int, size: int, crc: int
) -> bytes:
    head = _FRAME_HEAD.pack(_FRAME_MAGIC, flags, count, first_seq, time_ns, size, crc, 0)[:-4]
    return head + pack("<I", crc32c(head, crc32c(_PLACE.pack(uid, base_seq, offset))))


def parse_frame_head(data: bytes, at: int, uid: int, base_seq: int, offset: int) -> FrameHead | None:
    """The header at ``data[at:]``, which stands at ``offset`` of the file; None if it does not check out.

    Raises ``FormatUnknown`` (file "") for a good header with unknown flags.
    """
    if len(data) < at + FRAME_HEAD_BYTES:
        return None
    magic, flags, count, first_seq, time_ns, size, payload_crc, crc = _FRAME_HEAD.unpack_from(data, at)
    seed = crc32c(_PLACE.pack(uid, base_seq, offset))
    if magic != _FRAME_MAGIC or crc != crc32c(data[at : at + FRAME_HEAD_BYTES - 4], seed):
        return None
    if flags & ~_KNOWN_FLAGS:
        raise FormatUnknown("frame flags", file="", offset=offset, expected=_KNOWN_FLAGS, actual=flags)
    return FrameHead(offset, flags, count, first_seq, time_ns, size, payload_crc)


def sealed_frame(keys: Keys | None, head: FrameHead, payload: bytes) -> tuple[FrameHead, bytes]:
    """Header and payload as they are stored: sealed, if there are keys and they are not."""
    if keys is None or head.flags & SEALED:
        return head, payload
    payload = keys.seal(payload)
    flags = head.flags | SEALED
    return replace(head, flags=flags, payload_bytes=len(payload), payload_crc=crc32c(payload)), payload


def opened_frame(keys: Keys | None, head: FrameHead, payload: bytes) -> tuple[FrameHead, bytes]:
    """Header and payload as they leave the store: not sealed. The stored payload was verified."""
    if not head.flags & SEALED:
        check_plain(keys)
        return head, payload
    payload = opened(keys, payload)
    flags = head.flags & ~SEALED
    return replace(head, flags=flags, payload_bytes=len(payload), payload_crc=crc32c(payload)), payload


def plain_payload(head: FrameHead, payload: bytes, keys: Keys | None) -> bytes:
    """The payload in its plain form. Raises ``Corruption`` (file "frame") if it is not what the header says.

    ``keys`` are those of the store that the frame stands in; None for one that stands in no store.
    """
    if len(payload) != head.payload_bytes:
        raise Corruption("frame cut short", file="frame", offset=0, expected=head.payload_bytes, actual=len(payload))
    actual = crc32c(payload)
    if actual != head.payload_crc:
        raise Corruption("frame payload", file="frame", offset=0, expected=head.payload_crc, actual=actual)
    if head.flags & SEALED:
        payload = opened(keys, payload)
    else:
        check_plain(keys)
    return expanded(payload) if head.flags & COMPRESSED else payload


def decode_payload(head: FrameHead, payload: bytes, keys: Keys | None) -> StoredFrame:
    """The records of a frame, from its payload as stored. Raises as ``plain_payload`` does."""
    payload = plain_payload(head, payload, keys)
    count = head.count
    times: range | tuple[int, ...] = range(head.base_time_ns, head.base_time_ns + count)
    seqs: range | tuple[int, ...] = range(head.first_seq, head.first_seq + count)
    at = 0
    if head.flags & HAS_TIMES:
        times = unpack_from(f"<{count}q", payload)
        at = 8 * count
    if head.flags & HAS_SEQS:
        seqs = tuple([head.first_seq + delta for delta in unpack_from(f"<{count}I", payload, at)])
        at += 4 * count
    columns = decode_frame(payload[at:] if at else payload, count)
    return StoredFrame(columns, seqs, times, len(payload) + 150 * count)


def body_offset(head: FrameHead) -> int:
    """Where the body starts inside the plain payload."""
    return (8 * head.count if head.flags & HAS_TIMES else 0) + (4 * head.count if head.flags & HAS_SEQS else 0)


def scan_frames(vfs: Vfs, handle: int, uid: int, base_seq: int, end: int) -> Iterator[FrameHead | BadRange]:
    """Headers of all frames of a segment before offset ``end``, in order, and ``BadRange`` where bytes are no frame.

    A ``BadRange`` has first_seq 0 and last_seq 0: only the caller knows which sequences are missing there.
    """
    window = b""
    window_at = 0
    offset = SEGMENT_HEAD_BYTES
    while offset < end:
        if not window_at <= offset <= window_at + len(window) - FRAME_HEAD_BYTES:
            window = pread_salvaged(vfs, handle, min(_SCAN_WINDOW_BYTES, end - offset), offset)
            window_at = offset
        head = parse_frame_head(window, offset - window_at, uid, base_seq, offset)
        if head is not None and head.end <= end:
            yield head
            offset = head.end
            continue
        yield BadRange(0, 0, offset, "frame header")
        offset = _next_head(vfs, handle, uid, base_seq, offset + 1, end)


def _next_head(vfs: Vfs, handle: int, uid: int, base_seq: int, offset: int, end: int) -> int:
    """Offset of the next header that checks out, or ``end``."""
    while offset < end:
        window = pread_salvaged(vfs, handle, min(_SCAN_WINDOW_BYTES, end - offset), offset)
        at = window.find(_FRAME_MAGIC)
        while 0 <= at <= len(window) - FRAME_HEAD_BYTES:
            head = parse_frame_head(window, at, uid, base_seq, offset + at)
            if head is not None and head.end <= end:
                return offset + at
            at = window.find(_FRAME_MAGIC, at + 1)
        if offset + len(window) >= end or len(window) < FRAME_HEAD_BYTES:
            return end
        offset += len(window) - FRAME_HEAD_BYTES + 1
    return end
