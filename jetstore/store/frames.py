"""Messages between the server and its writer process over a socket pair.

``u32 buffer count | u64 meta length | u64 length of each buffer … | meta | buffers …``. Meta is a pickle (both ends are
this program on this machine); large bytes travel beside it, so they are copied by the kernel only. The two messages of
every block, ``append`` and its status, have a meta of their own, told by its first byte::

    APPEND   number:u64, then for each record: kind:u8 group:u32 term prev_term first_index last_index:u64
             message_count:u32 aux:u64
    STATUS   number lsn used_bytes max_bytes sync_ns:u64 accepts_publishes:u8 spare_files:u32,
             then for each pinning group: group:u32 index:u64
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any

from jetstore.store.ports import JournalStatus, Kind, Record
from jetstore.types import Buffer

_HEAD = struct.Struct("<IQ")
HEAD_BYTES = _HEAD.size
_APPEND = 1
_STATUS = 2
"""First bytes of a meta that is no pickle (those begin with 0x80)."""
_NUMBER = struct.Struct("<BQ")
_RECORD = struct.Struct("<BIQQQQIQ")
_STATUS_HEAD = struct.Struct("<BQQQQQBI")
_PINNED = struct.Struct("<IQ")
_KINDS = {int(kind): kind for kind in Kind}
JOINED_BYTES = 16 * 1024
"""A block whose bodies are all at most this long is sent as one buffer: copying is cheaper than many of them."""
OUT_OF_BAND_BYTES = 4096
"""Buffers smaller than this travel inside the pickle."""


def encode(message: tuple[Any, ...], buffers: Sequence[Buffer] = ()) -> list[Buffer]:
    """The frame of a message, as buffers to be sent one after another."""
    meta = pickle.dumps(message, protocol=5)
    lengths = struct.pack(f"<{len(buffers)}Q", *map(len, buffers))
    return [b"".join((_HEAD.pack(len(buffers), len(meta)), lengths, meta)), *buffers]


def encode_append(number: int, records: Sequence[Record]) -> list[Buffer]:
    """The frame of a journal block."""
    pack = _RECORD.pack
    heads = [
        pack(kind, group, term, prev_term, first, last, count, aux)
        for kind, group, term, prev_term, first, last, count, aux, _ in records
    ]
    bodies = [record.body for record in records]
    lengths = list(map(len, bodies))
    count = len(bodies)
    meta_bytes = _NUMBER.size + count * _RECORD.size
    head = (
        _HEAD.pack(count, meta_bytes), struct.pack(f"<{count}Q", *lengths), _NUMBER.pack(_APPEND, number), *heads
    )  # fmt: skip
    if max(lengths, default=0) <= JOINED_BYTES:
        return [b"".join((*head, *bodies))]
    return [b"".join(head), *bodies]


def encode_status(number: int, status: JournalStatus, sync_ns: int) -> bytes:
    """The answer to a journal block that is durable: decoded as ``(number, "ok", status)``."""
    lsn, used_bytes, max_bytes, accepts_publishes, pinned_by, spare_files, wants_relief, _ = status
    flags = accepts_publishes | wants_relief << 1
    meta = _STATUS_HEAD.pack(_STATUS, number, lsn, used_bytes, max_bytes, sync_ns, flags, spare_files)
    if pinned_by:
        meta += b"".join([_PINNED.pack(*pinned) for pinned in pinned_by])
    return _HEAD.pack(0, len(meta)) + meta


def encode_call(number: int, method: str, args: Sequence[Any]) -> list[Buffer]:
    """The frame of a command. Lists of large buffers among the arguments travel beside the pickle."""
    beside: list[Buffer] = []
    plain: list[Any] = []
    for arg in args:
        if isinstance(arg, list) and arg and all(isinstance(item, bytes | bytearray | memoryview) for item in arg):
            if sum(map(len, arg)) >= OUT_OF_BAND_BYTES:
                plain.append(_Beside(len(arg)))
                beside += arg
            else:
                plain.append([bytes(item) for item in arg])
        else:
            plain.append(arg)
    return encode((number, method, plain), beside)


class _Beside:
    """Stands for a list of ``count`` buffers that travel beside the pickle."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count

    def __reduce__(self) -> tuple[type[_Beside], tuple[int]]:
        return _Beside, (self.count,)


def records_of(heads: Buffer, buffers: Sequence[Buffer]) -> list[Record]:
    """The records of an ``append`` message. Their bodies are views of the received frame."""
    kinds = _KINDS
    return [
        Record(kinds[kind], group, term, prev_term, first, last, count, aux, body)  # type: ignore[arg-type]  # a view serves as bytes here
        for (kind, group, term, prev_term, first, last, count, aux), body in zip(
            _RECORD.iter_unpack(heads), buffers, strict=True
        )
    ]


def _status_of(meta: Buffer) -> tuple[int, str, JournalStatus]:
    _, number, lsn, used_bytes, max_bytes, sync_ns, flags, spare_files = _STATUS_HEAD.unpack_from(meta)
    pinned: Any = ()
    if len(meta) > _STATUS_HEAD.size:
        pinned = tuple(_PINNED.iter_unpack(meta[_STATUS_HEAD.size :]))
    status = JournalStatus(lsn, used_bytes, max_bytes, bool(flags & 1), pinned, spare_files, bool(flags & 2), sync_ns)
    return number, "ok", status


def _message_of(meta: memoryview) -> tuple[Any, ...]:
    if meta[0] == _STATUS:
        return _status_of(meta)
    if meta[0] == _APPEND:
        return _NUMBER.unpack_from(meta)[1], "append", meta[_NUMBER.size :]
    message: tuple[Any, ...] = pickle.loads(meta)
    return message


def args_of(plain: Sequence[Any], buffers: Sequence[Buffer]) -> list[Any]:
    """The arguments of a command, with its buffers put back."""
    taken = 0
    args: list[Any] = []
    for arg in plain:
        if isinstance(arg, _Beside):
            args.append(list(buffers[taken : taken + arg.count]))
            taken += arg.count
        else:
            args.append(arg)
    return args


SPACE_BYTES = 64 * 1024
COPIED_BYTES = 8 * 1024
"""Frames up to this size are copied out, so that the buffer can be used again at once; larger ones take it along."""


class Decoder:
    """Turns received bytes into messages: ``feed`` what came, ``take`` what is whole.

    Receive straight into ``space``: for a frame whose size is known that is the rest of the frame itself.
    """

    def __init__(self) -> None:
        self._data = bytearray(SPACE_BYTES)
        self._filled = 0

    def space(self) -> memoryview:
        """Where the next bytes go; say how many came by ``filled``."""
        if self._filled == len(self._data):
            self._reserve(2 * len(self._data))
        return memoryview(self._data)[self._filled :]

    def filled(self, count: int) -> None:
        """That many bytes were received into ``space``."""
        self._filled += count

    def take(self) -> tuple[tuple[Any, ...], list[memoryview]] | None:
        """The next whole message and its buffers (views that stay valid), or None."""
        if self._filled < HEAD_BYTES:
            return None
        count, meta_length = _HEAD.unpack_from(self._data)
        lengths_end = HEAD_BYTES + 8 * count
        if self._filled < lengths_end:
            return None
        lengths = struct.unpack_from(f"<{count}Q", self._data, HEAD_BYTES)
        total = lengths_end + meta_length + sum(lengths)
        if self._filled < total:
            self._reserve(total)
            return None
        rest = self._filled - total
        if total <= COPIED_BYTES:
            view = memoryview(bytes(memoryview(self._data)[:total]))
            if rest:
                self._data[:rest] = self._data[total : self._filled]
        else:
            frame = self._data
            self._data = bytearray(max(SPACE_BYTES, rest))
            self._data[:rest] = memoryview(frame)[total : self._filled]
            view = memoryview(frame)
        self._filled = rest
        message = _message_of(view[lengths_end : lengths_end + meta_length])
        buffers = []
        at = lengths_end + meta_length
        for length in lengths:
            buffers.append(view[at : at + length])
            at += length
        return message, buffers

    def _reserve(self, total: int) -> None:
        """Room for a frame of ``total`` bytes: always a new buffer, views of the old one may be about."""
        if len(self._data) < total:
            grown = bytearray(total)
            grown[: self._filled] = memoryview(self._data)[: self._filled]
            self._data = grown
