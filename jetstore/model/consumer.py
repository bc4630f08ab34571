"""``ConsumerConfig``: a consumer's configuration with the API's own field names. Durations are nanoseconds."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict

from jetstore.model.json import Duration, GoEnum, GoStruct, Int, Time, Uint64, fields_from_json
from jetstore.model.times import format_time


class DeliverPolicy(StrEnum):
    """Where a consumer starts."""

    ALL = "all"
    LAST = "last"
    NEW = "new"
    BY_START_SEQUENCE = "by_start_sequence"
    BY_START_TIME = "by_start_time"
    LAST_PER_SUBJECT = "last_per_subject"
    UNDEFINED = "undefined"
    """Asked for as such; the same as ``all``."""


class AckPolicy(StrEnum):
    """What an acknowledgement covers."""

    NONE = "none"
    ALL = "all"
    EXPLICIT = "explicit"
    FLOW_CONTROL = "flow_control"


class ReplayPolicy(StrEnum):
    """How fast stored messages are delivered."""

    INSTANT = "instant"
    ORIGINAL = "original"


class PriorityPolicy(StrEnum):
    """How pull requests of a group are chosen."""

    NONE = "none"
    OVERFLOW = "overflow"
    PINNED_CLIENT = "pinned_client"
    PRIORITIZED = "prioritized"


class ConsumerAction(StrEnum):
    """What a create request may do."""

    CREATE_OR_UPDATE = ""
    CREATE = "create"
    UPDATE = "update"


class ConsumerConfig(GoStruct):
    """One consumer's configuration, in the API's field order. Zero values mean "not given" until it is checked.

    ``consumer_checks.checked_consumer`` gives the defaulted and validated form.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    durable_name: str = ""
    name: str = ""
    description: str = ""
    deliver_policy: Annotated[DeliverPolicy, GoEnum()] = DeliverPolicy.ALL
    opt_start_seq: Uint64 = 0
    opt_start_time: Time = 0
    ack_policy: Annotated[AckPolicy, GoEnum()] = AckPolicy.NONE
    ack_wait: Duration = 0
    max_deliver: Int = 0
    backoff: tuple[Duration, ...] = ()
    filter_subject: str = ""
    filter_subjects: tuple[str, ...] = ()
    replay_policy: Annotated[ReplayPolicy, GoEnum()] = ReplayPolicy.INSTANT
    rate_limit_bps: Uint64 = 0
    sample_freq: str = ""
    max_waiting: Int = 0
    max_ack_pending: Int = 0
    flow_control: bool = False
    headers_only: bool = False
    max_batch: Int = 0
    max_expires: Duration = 0
    max_bytes: Int = 0
    deliver_subject: str = ""
    deliver_group: str = ""
    idle_heartbeat: Duration = 0
    inactive_threshold: Duration = 0
    num_replicas: Int = 0
    mem_storage: bool = False
    direct: bool = False
    sourcing: bool = False
    metadata: dict[str, str] = {}  # noqa: RUF012  # pydantic copies it for each object
    pause_until: Time = 0
    priority_groups: tuple[str, ...] = ()
    priority_policy: Annotated[PriorityPolicy, GoEnum("unknown priority policy: {raw}")] = PriorityPolicy.NONE
    priority_timeout: Duration = 0

    @property
    def is_push(self) -> bool:
        """Whether messages are sent to a fixed subject instead of being asked for."""
        return bool(self.deliver_subject)

    @property
    def is_durable(self) -> bool:
        """Whether it lives until it is deleted."""
        return bool(self.durable_name)

    @property
    def filters(self) -> tuple[str, ...]:
        """The subject filters, whichever field they came in; () = everything."""
        return (self.filter_subject,) if self.filter_subject else self.filter_subjects

    def to_json(self) -> dict[str, Any]:
        """The object of the API: field order and omissions as nats-server writes them."""
        shown: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name == "priority_policy" and value == PriorityPolicy.NONE:
                continue
            if not value and name not in _ALWAYS_SHOWN:
                continue
            if name in ("opt_start_time", "pause_until"):
                value = format_time(value)
            elif isinstance(value, StrEnum):
                value = value.value
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, dict):
                value = dict(sorted(value.items()))
            shown[name] = value
        return shown

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ConsumerConfig:
        """Of what ``to_json`` gave. ``DecodeError`` if it is something else."""
        return cls(**fields_from_json(cls, value, "ConsumerConfig"))


_ALWAYS_SHOWN = frozenset({"name", "deliver_policy", "ack_policy", "replay_policy", "num_replicas"})
