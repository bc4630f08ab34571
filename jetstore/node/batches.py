"""Atomic batches that clients are sending: kept by the node that leads the stream, proposed as one entry at commit.

Nothing of a batch is in the log before its commit, so a batch that is abandoned, or whose leader is gone, never was.
Source: ADR-50.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jetstore.errors import ApiError
from jetstore.model.api_errors import api_error
from jetstore.model.levels import API_LEVEL
from jetstore.store.ports import Columns
from jetstore.stream import headers

if TYPE_CHECKING:
    from jetstore.node.stream_group import StreamGroup

ID_BYTES_MAX = 64
MESSAGES_MAX = 1_000
"""Messages of one batch; above: 10199."""
OPEN_MAX = 50
"""Batches of one stream under way; above: 10210."""
IDLE_S = 10.0
"""A batch that nothing is added to for this long is abandoned."""
MESSAGE_OVERHEAD_BYTES = 64
"""What a message costs in an entry beside its subject and payload, at most."""

Abandoned = Callable[[str, str], None]
"""Told the id of an abandoned batch and why: ``timeout``, ``large``, ``incomplete``, ``unsupported``."""


class _Batch:
    """One batch under way."""

    __slots__ = ("bytes", "deadline_s", "header_lens", "payloads", "subjects")

    def __init__(self) -> None:
        self.subjects: list[bytes] = []
        self.header_lens: list[int] = []
        self.payloads: list[bytes] = []
        self.bytes = 0
        self.deadline_s = 0.0

    def add(self, subject: bytes, header: bytes, body: bytes) -> None:
        self.subjects.append(subject)
        self.header_lens.append(len(header))
        self.payloads.append(header + body)
        self.bytes += len(subject) + len(header) + len(body) + MESSAGE_OVERHEAD_BYTES


class Batches:
    """The batches of one stream. ``commit(columns, id, reply)`` is called with those that are complete."""

    def __init__(
        self, group: StreamGroup, commit: Callable[[Columns, bytes, bytes], None], abandoned: Abandoned
    ) -> None:
        """None is under way."""
        self._group = group
        self._commit = commit
        self._abandoned = abandoned
        self._open: dict[bytes, _Batch] = {}
        self._timer_is_set = False

    def clear(self, reason: str = "") -> None:
        """Forget all of them; with a reason it is announced."""
        batches, self._open = self._open, {}
        if reason:
            for batch_id in batches:
                self._abandoned(batch_id.decode("utf-8", "replace"), reason)

    def take(self, subject: bytes, reply: bytes, header: bytes, body: bytes) -> ApiError | bytes | None:
        """The next message of a batch: a refusal; b"" = it is kept; None = the batch is on its way."""
        fields = headers.fields(header)
        batch_id = fields.get(headers.BATCH_ID, b"")
        if len(batch_id) > ID_BYTES_MAX:
            return api_error("JSAtomicPublishInvalidBatchIDErr")
        number = headers.sequence(fields.get(headers.BATCH_SEQUENCE, b""))
        if number < 0:
            return self._drop(batch_id, "", "JSAtomicPublishMissingSeqErr")
        level = fields.get(headers.REQUIRED_LEVEL, b"")
        if level:
            if headers.sequence(level) < 0 or headers.sequence(level) > API_LEVEL:
                return self._drop(batch_id, "unsupported", "JSRequiredApiLevelErr")
            header = headers.without(header, headers.REQUIRED_LEVEL)
        commit = fields.get(headers.BATCH_COMMIT, b"")
        if commit not in (b"", b"1", b"eob"):
            return self._drop(batch_id, "incomplete", "JSAtomicPublishInvalidBatchCommitErr")
        batch = self._open.get(batch_id)
        expected = len(batch.subjects) + 1 if batch is not None else 1
        if number != expected or (number == 1 and commit == b"eob"):
            return self._drop(batch_id, "incomplete", "JSAtomicPublishIncompleteBatchErr")
        if batch is None:
            if len(self._open) >= OPEN_MAX:
                return api_error("JSAtomicPublishTooManyInflight")
            batch = self._open[batch_id] = _Batch()
        if commit == b"eob":
            cut = batch.header_lens[-1]
            last = headers.with_line(batch.payloads[-1][:cut], headers.BATCH_COMMIT, b"1")
            batch.payloads[-1] = last + batch.payloads[-1][cut:]
            batch.header_lens[-1] = len(last)
        else:
            limit = self._group.stream.settings.max_msg_size_bytes
            if 0 <= limit < len(header) + len(body):
                return self._drop(batch_id, "large", "JSStreamMessageExceedsMaximumErr")
            batch.add(subject, headers.storable(header), body)
            if len(batch.subjects) > MESSAGES_MAX:
                return self._drop(batch_id, "large", "JSAtomicPublishTooLargeBatchErrF", size=MESSAGES_MAX)
            bound = self._group.limits.entry_bytes_max
            if batch.bytes > bound and len(batch.subjects) > 1:
                return self._drop(batch_id, "large", "JSAtomicPublishTooLargeBatchErrF", size=f"{bound} bytes")
        if not commit:
            batch.deadline_s = self._group.loop.time() + IDLE_S
            self._watch()
            return b""
        del self._open[batch_id]
        self._commit(Columns(batch.subjects, batch.header_lens, batch.payloads), batch_id, reply)
        return None

    def _drop(self, batch_id: bytes, reason: str, name: str, **values: object) -> ApiError:
        if self._open.pop(batch_id, None) is not None and reason:
            self._abandoned(batch_id.decode("utf-8", "replace"), reason)
        return api_error(name, **values)

    def _watch(self) -> None:
        """Look again when the first of them may have been idle for too long."""
        if self._open and not self._timer_is_set:
            self._timer_is_set = True
            self._group.loop.call_at(min(batch.deadline_s for batch in self._open.values()), self._look)

    def _look(self) -> None:
        self._timer_is_set = False
        now_s = self._group.loop.time()
        for batch_id in [batch_id for batch_id, batch in self._open.items() if batch.deadline_s <= now_s]:
            del self._open[batch_id]
            self._abandoned(batch_id.decode("utf-8", "replace"), "timeout")
        self._watch()
