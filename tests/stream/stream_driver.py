"""Building blocks for tests of the stream: entries from plain messages, a stream over in-memory twins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jetstore.hot.frame import encode_frames
from jetstore.limits import Limits
from jetstore.model.stream import StreamConfig
from jetstore.store.memory_index import MemoryIndex
from jetstore.store.memory_log import MemoryLog
from jetstore.store.ports import Columns, Frame
from jetstore.stream import entries
from jetstore.stream.outcomes import Outcome
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid, RaftIndex, Term

SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND

Given = tuple[str, dict[str, str], str]
"""Subject, headers, body."""


def header_block(headers: dict[str, str]) -> bytes:
    if not headers:
        return b""
    lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def columns_of(messages: Sequence[Given]) -> Columns:
    blocks = [header_block(headers) for _, headers, _ in messages]
    return Columns(
        [subject.encode() for subject, _, _ in messages],
        list(map(len, blocks)) if any(blocks) else (),
        [block + body.encode() for block, (_, _, body) in zip(blocks, messages, strict=True)],
    )


def frames_of(messages: Sequence[Given], time_ns: int, frame_bytes_max: int = 32 * 1024) -> list[Frame]:
    return encode_frames(columns_of(messages), time_ns, frame_bytes_max)


class Driver:
    """Applies entries in order, at index 1, 2, …, in term 1. ``log`` keeps them for a replay."""

    def __init__(self, limits: Limits | None = None, storage: str = "file", **config: Any) -> None:  # Any: fields
        self.limits = limits or Limits()
        self.storage = storage
        self.stream = Stream(GroupUid(2), MemoryLog(storage), MemoryIndex(), self.limits)
        self.now_ns = START_NS
        self.version = 0
        self.log: list[bytes] = []
        self.config = StreamConfig(**{"name": "S", "subjects": (">",), "duplicate_window": 120 * SECOND} | config)
        if storage == "memory":
            self.config = self.config.model_copy(update={"storage": "memory"})
        self.configure()

    def apply(self, data: bytes, cache: list[Frame] | None = None) -> Outcome:
        self.log.append(data)
        return self.stream.apply(RaftIndex(len(self.log)), Term(1), data, cache)

    def configure(self, **changes: Any) -> Outcome:  # Any: fields
        self.version += 1
        self.config = self.config.model_copy(update=changes)
        return self.apply(entries.encode_config(self.version, self.now_ns, self.config))

    def publish(self, *messages: Given | str, cached: bool = False) -> Any:  # Any: read by each test
        given = [(message, {}, "") if isinstance(message, str) else message for message in messages]
        time_ns = self.stream.next_time_ns(self.now_ns, len(given))
        frames = frames_of(given, time_ns)
        data = entries.encode_publish(time_ns, frames)
        if not cached:
            frames = [replace(frame, columns=None) for frame in frames]
        return self.apply(data, frames if cached else None)

    def put(self, subject: str, body: str = "", **headers: str) -> Any:  # Any: the exception, or the sequence
        """Publish one message; ``Nats_Msg_Id="x"`` gives a header. Its sequence, or why it has none."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        outcome = self.publish((subject, named, body))
        return outcome.exceptions.get(0) or outcome.first_seq

    def subjects(self) -> list[str]:
        """Subjects of the live messages in order."""
        contents = self.stream.contents
        found = []
        for seq in contents.next_seqs(1, None, 1_000_000):
            meta = contents.meta(seq)
            assert meta is not None
            found.append(meta.subject.decode())
        return found

    def seqs(self) -> list[int]:
        return self.stream.contents.next_seqs(1, None, 1_000_000)
