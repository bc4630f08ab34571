"""Entries with messages of fast batches: stored as publishes are, but a batch that is to end at the first refusal does.

The leader proposes the messages of such a batch before it knows what became of those in front, so several entries of
it may be under way when one message is refused. What follows is therefore decided here, by every replica alike: the
refusal puts the batch's key into ``Stream.ended_batches``, and messages with a key that stands there are not stored.

Source: ADR-50, fast ingest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jetstore.errors import ApiError
from jetstore.hot.frame import frame_columns
from jetstore.store.ports import Columns, Frame
from jetstore.stream.apply_publish import Careful, on_time, store_whole
from jetstore.stream.entries import FastHead
from jetstore.stream.outcomes import BATCH_ENDED, BatchEnded, Duplicate, PublishOutcome

if TYPE_CHECKING:
    from jetstore.stream.stream import Stream

_PLAIN = -1
"""In place of a batch's key: no part of a batch."""


def apply_fast(stream: Stream, term: int, head: FastHead, frames: Sequence[Frame]) -> PublishOutcome:
    """Store the messages of one entry as far as they are accepted and their batches have not ended."""
    ended = stream.ended_batches
    ended.begin(term, head.ended)
    outcome = PublishOutcome(stream.contents.last_seq + 1, 0)
    runs = head.runs
    at = 0
    for given in frames:
        frame = on_time(stream, given)
        columns = frame_columns(frame)
        start, end = outcome.count, outcome.count + frame.count
        while at < len(runs) and runs[at][0] + runs[at][1] <= start:
            at += 1
        later = at
        while later < len(runs) and runs[later][0] < end:
            later += 1
        mine = runs[at:later]
        is_cut = bool(ended.keys) and any(key in ended.keys for _, _, key in mine)
        if is_cut or not store_whole(stream, frame, columns):
            keys = [_PLAIN] * frame.count
            for first, count, key in mine:
                for position in range(max(first, start), min(first + count, end)):
                    keys[position - start] = key
            _Batched(stream, frame, columns, outcome, keys).run()
        outcome.count += frame.count
    return outcome


class _Batched(Careful):
    """One frame, message by message, each with the key of its batch."""

    def __init__(
        self, stream: Stream, frame: Frame, columns: Columns, outcome: PublishOutcome, keys: Sequence[int]
    ) -> None:
        super().__init__(stream, frame, columns, outcome)
        self._keys = keys
        self._ended = stream.ended_batches.keys

    def take(
        self, position: int, subject: bytes, header_len: int, payload: bytes
    ) -> Duplicate | ApiError | BatchEnded | None:
        """As ``Careful``; a refusal ends the message's batch, and one of an ended batch is not looked at."""
        key = self._keys[position]
        if key in self._ended:
            return BATCH_ENDED
        self.takes_batch_id = key != _PLAIN
        refusal = super().take(position, subject, header_len, payload)
        if key > 0 and isinstance(refusal, ApiError):
            self._ended.add(key)
        return refusal
