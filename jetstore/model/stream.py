"""``StreamConfig``: a stream's configuration with the API's own field names. Durations are nanoseconds."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from jetstore.model.json import Duration, GoEnum, GoStruct, Int, Int32, Int64, Time, Uint64, fields_from_json
from jetstore.model.times import format_time


class RetentionPolicy(StrEnum):
    """What removes messages besides the limits."""

    LIMITS = "limits"
    INTEREST = "interest"
    WORKQUEUE = "workqueue"


class DiscardPolicy(StrEnum):
    """Which message gives way at a limit."""

    OLD = "old"
    NEW = "new"


class StorageType(StrEnum):
    """Where messages live."""

    FILE = "file"
    MEMORY = "memory"


class StoreCompression(StrEnum):
    """How blocks are compressed."""

    NONE = "none"
    S2 = "s2"


class PersistMode(StrEnum):
    """When a publish is acknowledged."""

    UNSET = ""
    DEFAULT = "default"
    ASYNC = "async"


class _Model(GoStruct):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Placement(_Model):
    """Where replicas may live."""

    cluster: str = ""
    tags: tuple[str, ...] = ()
    preferred: str = ""


class ExternalStream(_Model):
    """A stream in another account or domain."""

    api: str = ""
    deliver: str = ""


class SubjectTransformConfig(_Model):
    """A subject mapping."""

    src: str = ""
    dest: str = ""


class StreamConsumerSource(_Model):
    """A consumer made beforehand for a mirror or source."""

    name: str = ""
    deliver_subject: str = ""


class StreamSource(_Model):
    """Where a mirror or source copies from."""

    name: str = ""
    opt_start_seq: Uint64 = 0
    opt_start_time: Time = 0
    filter_subject: str = ""
    subject_transforms: tuple[SubjectTransformConfig, ...] = ()
    external: ExternalStream | None = None
    consumer: StreamConsumerSource | None = None


class RePublish(_Model):
    """Where stored messages are published again."""

    src: str = ""
    dest: str = ""
    headers_only: bool = False


class StreamConsumerLimits(_Model):
    """Defaults and ceilings for new consumers."""

    inactive_threshold: Duration = 0
    max_ack_pending: Int = 0


class StreamConfig(_Model):
    """One stream's configuration, in the API's field order. Zero values mean "not given" until it is checked.

    ``stream_checks.checked_stream`` gives the defaulted and validated form; everything behind the API works on that.
    """

    name: str = ""
    description: str = ""
    subjects: tuple[str, ...] = ()
    retention: Annotated[RetentionPolicy, GoEnum()] = RetentionPolicy.LIMITS
    max_consumers: Int = 0
    max_msgs: Int64 = 0
    max_bytes: Int64 = 0
    max_age: Duration = 0
    max_msgs_per_subject: Int64 = 0
    max_msg_size: Int32 = 0
    discard: Annotated[DiscardPolicy, GoEnum(ignore_case=True)] = DiscardPolicy.OLD
    storage: Annotated[StorageType, GoEnum()] = StorageType.FILE
    num_replicas: Int = 0
    no_ack: bool = False
    duplicate_window: Duration = 0
    placement: Placement | None = None
    mirror: StreamSource | None = None
    sources: tuple[StreamSource, ...] = ()
    compression: Annotated[StoreCompression, GoEnum("unknown compression algorithm", is_go_string=True)] = (
        StoreCompression.NONE
    )
    first_seq: Uint64 = 0
    subject_transform: SubjectTransformConfig | None = None
    republish: RePublish | None = None
    allow_direct: bool = False
    mirror_direct: bool = False
    discard_new_per_subject: bool = False
    sealed: bool = False
    deny_delete: bool = False
    deny_purge: bool = False
    allow_rollup_hdrs: bool = False
    consumer_limits: StreamConsumerLimits = Field(default_factory=StreamConsumerLimits)
    allow_msg_ttl: bool = False
    subject_delete_marker_ttl: Duration = 0
    allow_msg_counter: bool = False
    allow_atomic: bool = False
    allow_msg_schedules: bool = False
    persist_mode: Annotated[PersistMode, GoEnum()] = PersistMode.UNSET
    allow_batched: bool = False
    metadata: dict[str, str] = {}  # noqa: RUF012  # pydantic copies it for each object

    def to_json(self) -> dict[str, Any]:
        """The object of the API: field order and omissions as nats-server writes them."""
        shown: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if not value and name not in _ALWAYS_SHOWN:
                continue
            shown[name] = _shown(value)
        return shown

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StreamConfig:
        """Of what ``to_json`` gave. ``DecodeError`` if it is something else."""
        return cls(**fields_from_json(cls, value, "StreamConfig"))


_ALWAYS_SHOWN = frozenset(
    (
        *("name", "retention", "max_consumers", "max_msgs", "max_bytes", "max_age", "max_msgs_per_subject"),
        *("discard", "storage", "num_replicas", "compression", "allow_direct", "mirror_direct", "sealed"),
        *("deny_delete", "deny_purge", "allow_rollup_hdrs", "consumer_limits", "allow_msg_ttl"),
    )
)


def _shown(value: Any) -> Any:  # Any: a field's value and its JSON
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, SubjectTransformConfig | ExternalStream | StreamConsumerSource):
        return {key: getattr(value, key) for key in type(value).model_fields}
    if isinstance(value, RePublish):
        shown = {"src": value.src, "dest": value.dest, "headers_only": value.headers_only}
        return {key: item for key, item in shown.items() if item or key == "dest"}
    if isinstance(value, StreamSource):
        shown = {key: _shown(getattr(value, key)) for key in type(value).model_fields if getattr(value, key)}
        shown["name"] = value.name
        if value.opt_start_time:
            shown["opt_start_time"] = format_time(value.opt_start_time)
        return {key: shown[key] for key in type(value).model_fields if key in shown}
    if isinstance(value, BaseModel):
        return {key: _shown(getattr(value, key)) for key in type(value).model_fields if getattr(value, key)}
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    if isinstance(value, dict):
        return dict(sorted(value.items()))
    return value
