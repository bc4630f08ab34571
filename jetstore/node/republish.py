"""Stored messages published again, on the node that leads their stream."""

from __future__ import annotations

from jetstore.model.times import format_time
from jetstore.model.transforms import SubjectTransform
from jetstore.node.ports import Outlet
from jetstore.store.ports import Columns, Frame
from jetstore.stream.stream import Stream


class Republisher:
    """Sees what a stream stores and publishes it under other subjects, with headers that say where it came from.

    At most once: what is stored while nobody leads is not published again.
    """

    def __init__(self, outlet: Outlet) -> None:
        """Idle until ``follow`` finds a stream with a ``republish`` configuration."""
        self._outlet = outlet
        self._stream: Stream | None = None
        self._transform: SubjectTransform | None = None
        self._headers_only = False
        self._subjects: list[bytes] = []
        self._header_lens: list[int] = []
        self._payloads: list[bytes] = []

    def follow(self, stream: Stream) -> None:
        """Do what this stream's configuration says now."""
        self.leave()
        republish = stream.config.republish if stream.config is not None else None
        if republish is None or not republish.dest:
            return
        self._transform = SubjectTransform(republish.src, republish.dest)
        self._headers_only = republish.headers_only
        self._stream = stream
        stream.before_store = self._on_store

    def leave(self) -> None:
        """Publish nothing more, not even what waits."""
        if self._stream is not None:
            self._stream.before_store = None
        self._stream = None
        self._subjects, self._header_lens, self._payloads = [], [], []

    def flush(self) -> None:
        """Publish what was stored since."""
        if self._subjects:
            subjects, header_lens, payloads = self._subjects, self._header_lens, self._payloads
            self._subjects, self._header_lens, self._payloads = [], [], []
            self._outlet.publish(subjects, header_lens, payloads)

    def _on_store(self, first_seq: int, frame: Frame, columns: Columns) -> None:
        assert self._stream is not None
        assert self._transform is not None
        subjects, header_lens, payloads = columns
        targets = {subject: self._transform.apply(subject) for subject in subjects}
        wanted = [subject for subject, target in targets.items() if target is not None]
        if not wanted:
            return
        rows = self._stream.contents.rows(wanted)
        last = {subject: row.last if row else 0 for subject, row in zip(wanted, rows, strict=True)}
        name = self._stream.settings.name
        for at, subject in enumerate(subjects):
            target = targets[subject]
            if target is None:
                continue
            cut = header_lens[at] if header_lens else 0
            payload = payloads[at]
            header = b"%bNats-Stream: %b\r\nNats-Subject: %b\r\nNats-Sequence: %d\r\nNats-Time-Stamp: %b\r\n" % (
                payload[: cut - 2] if cut else b"NATS/1.0\r\n",
                name,
                subject,
                first_seq + at,
                format_time(frame.base_time_ns + at).encode(),
            )
            header += b"Nats-Last-Sequence: %d\r\n" % last[subject]
            last[subject] = first_seq + at
            if self._headers_only:
                header += b"Nats-Msg-Size: %d\r\n" % (len(payload) - cut)
            header += b"\r\n"
            self._subjects.append(target)
            self._header_lens.append(len(header))
            self._payloads.append(header if self._headers_only else header + payload[cut:])
