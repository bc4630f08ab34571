"""A stream's configuration as apply needs it: plain numbers, 0 for "no limit", sizes for its storage class."""

from __future__ import annotations

from dataclasses import dataclass

from jetstore.model.source_checks import origin_keys
from jetstore.model.stream import DiscardPolicy, RetentionPolicy, StorageType, StoreCompression, StreamConfig

FILE_RECORD_OVERHEAD_BYTES = 30
"""What nats-server's file store counts besides subject, header and body."""
FILE_HEADER_OVERHEAD_BYTES = 4
"""And once more for a message with a header block."""
MEMORY_RECORD_OVERHEAD_BYTES = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of a ``StreamConfig`` that decides outcomes."""

    name: bytes
    is_interest: bool
    is_workqueue: bool
    max_msgs: int
    max_bytes: int
    max_age_ns: int
    max_msgs_per_subject: int
    max_msg_size_bytes: int
    """-1 = no limit (0 allows empty messages only)."""
    discard_new: bool
    discard_new_per_subject: bool
    duplicate_window_ns: int
    first_seq: int
    sealed: bool
    deny_delete: bool
    deny_purge: bool
    allows_rollup: bool
    allows_msg_ttl: bool
    allows_atomic: bool
    is_counter: bool
    allows_schedules: bool
    subjects: tuple[bytes, ...]
    """What the stream captures."""
    origin_keys: frozenset[str]
    """What the stream copies from (``model.source_checks``)."""
    marker_ttl_s: int
    """Lifetime of delete markers in whole seconds; 0 = no markers."""
    record_overhead_bytes: int
    header_overhead_bytes: int
    is_compressing: bool
    """Its stored frames, decides no outcome."""

    @classmethod
    def of(cls, config: StreamConfig) -> Settings:
        """Of a checked configuration."""
        is_memory = config.storage == StorageType.MEMORY
        return cls(
            name=config.name.encode(),
            is_interest=config.retention == RetentionPolicy.INTEREST,
            is_workqueue=config.retention == RetentionPolicy.WORKQUEUE,
            max_msgs=max(config.max_msgs, 0),
            max_bytes=max(config.max_bytes, 0),
            max_age_ns=max(config.max_age, 0),
            max_msgs_per_subject=max(config.max_msgs_per_subject, 0),
            max_msg_size_bytes=config.max_msg_size if config.max_msg_size > 0 else -1,
            discard_new=config.discard == DiscardPolicy.NEW,
            discard_new_per_subject=config.discard_new_per_subject,
            duplicate_window_ns=max(config.duplicate_window, 0),
            first_seq=config.first_seq,
            sealed=config.sealed,
            deny_delete=config.deny_delete,
            deny_purge=config.deny_purge,
            allows_rollup=config.allow_rollup_hdrs and not config.deny_purge,
            allows_msg_ttl=config.allow_msg_ttl,
            allows_atomic=config.allow_atomic,
            is_counter=config.allow_msg_counter,
            allows_schedules=config.allow_msg_schedules,
            subjects=tuple(subject.encode() for subject in config.subjects),
            origin_keys=frozenset(origin_keys(config)),
            marker_ttl_s=max(config.subject_delete_marker_ttl, 0) // 1_000_000_000,
            record_overhead_bytes=MEMORY_RECORD_OVERHEAD_BYTES if is_memory else FILE_RECORD_OVERHEAD_BYTES,
            header_overhead_bytes=0 if is_memory else FILE_HEADER_OVERHEAD_BYTES,
            is_compressing=config.compression == StoreCompression.S2,
        )

    def record_bytes(self, subject: bytes, header_len: int, payload: bytes) -> int:
        """Size of one stored message as users see it."""
        extra = self.header_overhead_bytes if header_len else 0
        return len(subject) + len(payload) + self.record_overhead_bytes + extra
