"""Names for every kind of number, so that a sequence, an index, an offset and a count can never be confused."""

from __future__ import annotations

from typing import NewType, TypeAlias

StreamSeq = NewType("StreamSeq", int)
"""Position of a message in its stream; 1 is the first; never handed out twice."""
ConsumerSeq = NewType("ConsumerSeq", int)
"""Number of a delivery of one consumer; 1 is the first; a redelivery gets a new one."""
RaftIndex = NewType("RaftIndex", int)
"""Position of an entry in a group's log; 1 is the first."""
Term = NewType("Term", int)
GroupUid = NewType("GroupUid", int)
"""Number of a Raft group, given out by the meta group in order and never reused. The meta group itself is 1."""
Lsn = NewType("Lsn", int)
"""Number of a journal block; 1 is the first; strictly +1 per block, torn ones excluded."""
Nanos = NewType("Nanos", int)
"""Wall time in nanoseconds since 1970-01-01 UTC, or a duration in nanoseconds."""

META_GROUP = GroupUid(1)

Buffer: TypeAlias = bytes | bytearray | memoryview
