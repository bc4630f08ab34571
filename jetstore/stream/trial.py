"""What would become of one message: the checks of a publish, made against the applied state, and nothing changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.errors import ApiError
from jetstore.hot.frame import encode_frames
from jetstore.store.ports import Columns
from jetstore.stream.apply_publish import Careful
from jetstore.stream.outcomes import BatchEnded, Duplicate, PublishOutcome

if TYPE_CHECKING:
    from jetstore.stream.stream import Stream
    from jetstore.types import Nanos


def trial(
    stream: Stream, subject: bytes, header_len: int, payload: bytes, now_ns: Nanos
) -> Duplicate | ApiError | BatchEnded | None:
    """Why a message would not be stored; None: it would be, if there is room for it, which is not looked at."""
    columns = Columns([subject], [header_len] if header_len else (), [payload])
    frame = encode_frames(columns, now_ns, stream.limits.frame_bytes_max)[0]
    return _Trial(stream, frame, columns, PublishOutcome(0, 0)).take(0, subject, header_len, payload)


class _Trial(Careful):
    """The checks alone. Replicas must not differ: whatever only apply may change stays as it is."""

    def check_id(self, msg_id: bytes) -> Duplicate | ApiError | None:
        dedupe = self.stream.dedupe
        seq = dedupe.find(msg_id, self.frame.base_time_ns) if msg_id and dedupe.window_ns else 0
        return Duplicate(seq) if seq > 0 else None

    def check_room(self, subject: bytes, header_len: int, payload: bytes, rollup: bytes) -> ApiError | None:
        return None

    def accept(
        self, position: int, subject: bytes, header: bytes, payload: bytes, msg_id: bytes, ttl: int, rollup: bytes
    ) -> None:
        pass

    def _begin_schedule(self, pattern: bytes) -> None:
        pass

    def _end_schedule(self, subject: bytes) -> None:
        pass
