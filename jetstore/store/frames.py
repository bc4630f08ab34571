"""Messages between the server and its writer process over a socket pair.

``u32 buffer count | u64 meta length | u64 length of each buffer … | meta | buffers …``. Meta is a pickle (both ends are
this program on this machine); large bytes travel beside it, so they are copied by the kernel only.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any

from jetstore.store.ports import Kind, Record
from jetstore.types import Buffer

_HEAD = struct.Struct("<IQ")
HEAD_BYTES = _HEAD.size
OUT_OF_BAND_BYTES = 4096
"""Buffers smaller than this travel inside the pickle."""


def encode(message: tuple[Any, ...], buffers: Sequence[Buffer] = ()) -> list[Buffer]:
    """The frame of a message, as buffers to be sent one after another."""
    meta = pickle.dumps(message, protocol=5)
    lengths = struct.pack(f"<{len(buffers)}Q", *map(len, buffers))
    return [b"".join((_HEAD.pack(len(buffers), len(meta)), lengths, meta)), *buffers]


def encode_append(number: int, records: Sequence[Record]) -> list[Buffer]:
    """The frame of a journal block."""
    heads = [
        (int(kind), group, term, prev_term, first, last, count, aux)
        for kind, group, term, prev_term, first, last, count, aux, _ in records
    ]
    return encode((number, "append", heads), [record.body for record in records])


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


def records_of(heads: Sequence[tuple[int, ...]], buffers: Sequence[Buffer]) -> list[Record]:
    """The records of an ``append`` message. Their bodies are views of the received frame."""
    return [
        Record(Kind(kind), group, term, prev_term, first, last, count, aux, body)  # type: ignore[arg-type]  # a view serves as bytes here
        for (kind, group, term, prev_term, first, last, count, aux), body in zip(heads, buffers, strict=True)
    ]


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


class Decoder:
    """Turns received bytes into messages: ``feed`` what came, ``take`` what is whole.

    Receive straight into ``space``: for a frame whose size is known that is the rest of the frame itself.
    """

    def __init__(self) -> None:
        self._data = bytearray(64 * 1024)
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
        frame, rest = self._data, self._data[total : self._filled]
        self._data = bytearray(max(64 * 1024, len(rest)))
        self._data[: len(rest)] = rest
        self._filled = len(rest)
        view = memoryview(frame)
        message = pickle.loads(view[lengths_end : lengths_end + meta_length])
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
