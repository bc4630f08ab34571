"""A frame as read back: verified, decoded, still in columns; and messages made of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from operator import add

from jetstore.hot.columns import Columns
from jetstore.store.ports import Message


@dataclass(slots=True)
class StoredFrame:
    """Records of one frame, or some of them, in order."""

    columns: Columns
    seqs: Sequence[int]
    times: Sequence[int]
    weight_bytes: int = 0
    """What it costs to keep it in memory, about."""

    def slice(self, start: int, stop: int) -> StoredFrame:
        """The records at positions start … stop - 1."""
        if start == 0 and stop == len(self.seqs):
            return self
        subjects, header_lens, payloads = self.columns
        columns = Columns(subjects[start:stop], header_lens[start:stop], payloads[start:stop])
        return StoredFrame(columns, self.seqs[start:stop], self.times[start:stop])

    def pick(self, positions: list[int]) -> StoredFrame:
        """The records at these positions."""
        subjects, header_lens, payloads = self.columns
        columns = Columns(
            [subjects[at] for at in positions],
            [header_lens[at] for at in positions] if header_lens else (),
            [payloads[at] for at in positions],
        )
        return StoredFrame(columns, [self.seqs[at] for at in positions], [self.times[at] for at in positions])


def take_messages(found: list[Message], frame: StoredFrame, total: int, max_bytes: int) -> int:
    """Append the frame's messages to ``found`` until ``total`` (bytes so far) reaches ``max_bytes``; the new total."""
    subjects, header_lens, payloads = frame.columns
    size = sum(map(len, payloads)) + sum(map(len, subjects))
    if total + size > max_bytes:
        ends = list(accumulate(map(add, map(len, payloads), map(len, subjects)), initial=total))
        stop = bisect_left(ends, max_bytes, 1)
        frame = frame.slice(0, min(stop, len(subjects)))
        subjects, header_lens, payloads = frame.columns
        size = ends[len(subjects)] - total
    headers: Sequence[bytes] | repeat[bytes] = repeat(b"")
    if header_lens and any(header_lens):
        headers = [payload[:cut] for cut, payload in zip(header_lens, payloads, strict=True)]
        payloads = [payload[cut:] for cut, payload in zip(header_lens, payloads, strict=True)]
    # ``Message(...)`` per message is a Python call each; this is the same without.
    rows = zip(frame.seqs, frame.times, subjects, headers, payloads, strict=False)
    found.extend(map(tuple.__new__, repeat(Message), rows))
    return total + size
