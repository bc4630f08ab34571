"""What the engine reports about its assets (plain values) and how each is shown as JSON.

The ``*_json`` functions give dicts whose key order and omissions are those of the API (reference order, ``?`` fields
left out when zero). Times are nanoseconds since 1970; 0 is "never" and shows as the year 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jetstore.errors import ApiError
from jetstore.model.api_errors import error_json
from jetstore.model.consumer import ConsumerConfig
from jetstore.model.levels import API_LEVEL, NATS_VERSION, consumer_level
from jetstore.model.stream import StreamConfig, StreamSource
from jetstore.model.times import format_time

INT64_MAX = (1 << 63) - 1
"""What a duration stops at: clients cannot read a longer one."""
JsonDict = dict[str, Any]  # Any: a JSON value


@dataclass(frozen=True, slots=True)
class StreamState:
    """Counters of one stream. Never written: all zero. Emptied: first_seq = last_seq + 1, first_ts_ns = 0."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    first_ts_ns: int = 0
    last_seq: int = 0
    last_ts_ns: int = 0
    num_subjects: int = 0
    num_deleted: int = 0
    """Interior gaps only."""
    consumer_count: int = 0
    deleted: Sequence[int] = ()
    """Only when asked for."""
    subjects: Mapping[str, int] | None = None
    """Only when asked for: one page of subject → message count, sorted by subject."""
    lost_messages: Sequence[int] = ()
    lost_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """How far a stream has got in an origin."""

    source: StreamSource
    lag: int = 0
    seq: int = 0
    """Last sequence taken; shown for sources, not for mirrors."""
    active_ns: int = -1
    """Since the origin was last looked at; -1 = never."""
    error: ApiError | None = None


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A member of a group as another one sees it."""

    name: str
    """Of its server."""
    peer: str
    """Of its server, too: see ``jetstore.node.cluster_info.peer_id``."""
    is_current: bool = False
    is_offline: bool = False
    active_ns: int = 0
    """Since it was last heard; 0 = never, as far as the answering node remembers."""
    lag: int = 0
    """Committed entries that it is not known to have; 0 where that is not known."""
    is_pending: bool = False
    """It is to be a member and does not vote yet."""


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """Where a replicated thing is."""

    name: str
    """Of the cluster."""
    leader: str = ""
    """The server that leads it; "" = nobody, or it is not known."""
    replicas: Sequence[PeerInfo] = ()
    """Its other members by name."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream as its info shows it."""

    config: StreamConfig
    created_ns: int
    state: StreamState
    subjects_total: int = 0
    """With a subjects_filter: how many subjects match in all; ``state.subjects`` is one page of them."""
    mirror: SourceInfo | None = None
    sources: Sequence[SourceInfo] = ()
    cluster: ClusterInfo | None = None
    """None: a standalone server."""


@dataclass(frozen=True, slots=True)
class SequenceInfo:
    """A pair of positions and when it last moved (0 = never)."""

    consumer_seq: int = 0
    stream_seq: int = 0
    last_active_ns: int = 0


@dataclass(frozen=True, slots=True)
class PriorityGroupState:
    """A priority group of a consumer and, if a client is pinned, its id and since when."""

    group: str
    pin_id: str = ""
    pinned_ns: int = 0


@dataclass(frozen=True, slots=True)
class ConsumerInfo:
    """A consumer as its info shows it."""

    stream_name: str
    name: str
    created_ns: int
    config: ConsumerConfig
    delivered: SequenceInfo = SequenceInfo()
    ack_floor: SequenceInfo = SequenceInfo()
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    num_pending: int = 0
    push_bound: bool = False
    paused: bool = False
    pause_remaining_ns: int = 0
    priority_groups: Sequence[PriorityGroupState] = ()
    cluster: ClusterInfo | None = None
    """None: a standalone server."""


def tier_of(replicas: int) -> str:
    """The name of the tier of streams with so many replicas."""
    return f"R{max(replicas, 1)}"


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """JetStream limits of an account; -1 = none."""

    max_memory: int = -1
    max_storage: int = -1
    max_streams: int = -1
    max_consumers: int = -1
    max_ack_pending: int = -1
    memory_max_stream_bytes: int = -1
    storage_max_stream_bytes: int = -1
    max_bytes_required: bool = False
    tiers: Mapping[str, AccountLimits] = field(default_factory=dict)
    """Where there are any ("R1", "R3"), each bounds the streams with so many replicas, and nothing else counts."""

    def of(self, replicas: int) -> AccountLimits | None:
        """What bounds streams with so many replicas; None: there may be none of them."""
        return self.tiers.get(tier_of(replicas)) if self.tiers else self


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """JetStream usage of an account."""

    memory: int = 0
    storage: int = 0
    reserved_memory: int = 0
    reserved_storage: int = 0
    streams: int = 0
    consumers: int = 0
    limits: AccountLimits = field(default_factory=AccountLimits)
    tiers: Mapping[str, AccountInfo] = field(default_factory=dict)
    """The same of each tier, where the limits are those of tiers."""


@dataclass(frozen=True, slots=True)
class ApiStats:
    """How many API requests were answered, how many of them with an error, how many are being worked on."""

    total: int = 0
    errors: int = 0
    inflight: int = 0


@dataclass(frozen=True, slots=True)
class PauseState:
    """Answer to a pause request: ``pause_until_ns`` 0 = not paused."""

    paused: bool
    pause_until_ns: int = 0
    pause_remaining_ns: int = 0


def stream_state_json(state: StreamState) -> JsonDict:
    """The ``state`` object of a stream info."""
    shown: JsonDict = {
        "messages": state.messages,
        "bytes": state.bytes,
        "first_seq": state.first_seq,
        "first_ts": format_time(state.first_ts_ns),
        "last_seq": state.last_seq,
        "last_ts": format_time(state.last_ts_ns),
    }
    if state.num_subjects:
        shown["num_subjects"] = state.num_subjects
    if state.subjects:
        shown["subjects"] = dict(state.subjects)
    if state.num_deleted:
        shown["num_deleted"] = state.num_deleted
    if state.deleted:
        shown["deleted"] = list(state.deleted)
    if state.lost_messages:
        shown["lost"] = {"msgs": list(state.lost_messages), "bytes": state.lost_bytes}
    shown["consumer_count"] = state.consumer_count
    return shown


def with_dynamic_metadata(shown_config: JsonDict) -> JsonDict:
    """The configuration as INFO, CREATE and UPDATE show it: plus the server's version and API level."""
    metadata = dict(shown_config.get("metadata", {}))
    metadata["_nats.ver"] = NATS_VERSION
    metadata["_nats.level"] = str(API_LEVEL)
    shown = dict(shown_config)
    shown["metadata"] = dict(sorted(metadata.items()))
    return shown


def stream_info_json(
    info: StreamInfo, now_ns: int, *, dynamic_metadata: bool = False, cluster_leader: str = "", domain: str = ""
) -> JsonDict:
    """A StreamInfo object (without the envelope). ``cluster_leader``: a standalone server's name, or ""."""
    config = info.config.to_json()
    shown: JsonDict = {
        "config": with_dynamic_metadata(config) if dynamic_metadata else config,
        "created": format_time(info.created_ns),
        "state": stream_state_json(info.state),
    }
    if domain:
        shown["domain"] = domain
    if info.cluster is not None:
        shown["cluster"] = cluster_info_json(info.cluster)
    elif cluster_leader:
        shown["cluster"] = {"leader": cluster_leader}
    if info.mirror is not None:
        shown["mirror"] = source_info_json(info.mirror)
    if info.sources:
        shown["sources"] = [source_info_json(source) for source in info.sources]
    shown["ts"] = format_time(now_ns)
    return shown


def peer_info_json(peer: PeerInfo) -> JsonDict:
    """A PeerInfo object."""
    shown: JsonDict = {"name": peer.name, "current": peer.is_current}
    if peer.is_offline:
        shown["offline"] = True
    shown["active"] = peer.active_ns
    if peer.lag:
        shown["lag"] = peer.lag
    shown["peer"] = peer.peer
    if peer.is_pending:
        shown["pending"] = True
    return shown


def cluster_info_json(info: ClusterInfo) -> JsonDict:
    """The ``cluster`` object of a stream's or consumer's info."""
    shown: JsonDict = {"name": info.name}
    if info.leader:
        shown["leader"] = info.leader
    if info.replicas:
        shown["replicas"] = [peer_info_json(peer) for peer in info.replicas]
    return shown


def source_info_json(info: SourceInfo) -> JsonDict:
    """A SourceInfo object."""
    source = info.source
    shown: JsonDict = {"name": source.name}
    if source.external is not None:
        shown["external"] = {"api": source.external.api, "deliver": source.external.deliver}
    shown["lag"] = info.lag
    if info.seq:
        shown["seq"] = info.seq
    shown["active"] = info.active_ns
    if info.error is not None:
        shown["error"] = error_json(info.error)
    if source.filter_subject:
        shown["filter_subject"] = source.filter_subject
    if source.subject_transforms:
        shown["subject_transforms"] = [{"src": each.src, "dest": each.dest} for each in source.subject_transforms]
    return shown


def sequence_info_json(sequence: SequenceInfo) -> JsonDict:
    """``delivered`` or ``ack_floor`` of a consumer."""
    shown: JsonDict = {"consumer_seq": sequence.consumer_seq, "stream_seq": sequence.stream_seq}
    if sequence.last_active_ns:
        shown["last_active"] = format_time(sequence.last_active_ns)
    return shown


def consumer_info_json(info: ConsumerInfo, now_ns: int, *, dynamic_metadata: bool = False) -> JsonDict:
    """A ConsumerInfo object (without the envelope)."""
    config = _with_level_now(info.config.to_json())
    shown: JsonDict = {
        "stream_name": info.stream_name,
        "name": info.name,
        "created": format_time(info.created_ns),
        "config": consumer_config_with_metadata(config) if dynamic_metadata else config,
        "delivered": sequence_info_json(info.delivered),
        "ack_floor": sequence_info_json(info.ack_floor),
        "num_ack_pending": info.num_ack_pending,
        "num_redelivered": info.num_redelivered,
        "num_waiting": info.num_waiting,
        "num_pending": info.num_pending,
    }
    if info.cluster is not None:
        shown["cluster"] = cluster_info_json(info.cluster)
    if info.push_bound:
        shown["push_bound"] = True
    if info.paused:
        shown["paused"] = True
    if info.pause_remaining_ns:
        shown["pause_remaining"] = min(info.pause_remaining_ns, INT64_MAX)
    shown["ts"] = format_time(now_ns)
    if info.priority_groups:
        shown["priority_groups"] = [_priority_group_json(state) for state in info.priority_groups]
    return shown


def _priority_group_json(state: PriorityGroupState) -> JsonDict:
    shown: JsonDict = {"group": state.group}
    if state.pin_id:
        shown["pinned_client_id"] = state.pin_id
    shown["pinned_ts"] = format_time(state.pinned_ns)
    return shown


def consumer_config_with_metadata(shown_config: JsonDict) -> JsonDict:
    """As ``with_dynamic_metadata``, keeping ``metadata`` in its place before ``pause_until`` and priority fields."""
    metadata = with_dynamic_metadata(shown_config)["metadata"]
    after = ("pause_until", "priority_groups", "priority_policy", "priority_timeout")
    shown = {key: value for key, value in shown_config.items() if key not in after and key != "metadata"}
    shown["metadata"] = metadata
    shown.update((key, shown_config[key]) for key in after if key in shown_config)
    return shown


def _with_level_now(shown_config: JsonDict) -> JsonDict:
    """The level as the configuration is now: CONSUMER.PAUSE begins and ends what needs one."""
    metadata = shown_config.get("metadata", {})
    if "_nats.req.level" not in metadata:
        return shown_config
    if shown_config.get("sourcing"):
        return shown_config
    has_priority = "priority_policy" in shown_config or "priority_groups" in shown_config
    has_flow = shown_config.get("ack_policy") == "flow_control"
    level = consumer_level(is_paused="pause_until" in shown_config, has_priority=has_priority, has_flow=has_flow)
    return shown_config | {"metadata": metadata | {"_nats.req.level": level}}


def account_limits_json(limits: AccountLimits) -> JsonDict:
    """The ``limits`` object of an account info."""
    return {
        "max_memory": limits.max_memory,
        "max_storage": limits.max_storage,
        "max_streams": limits.max_streams,
        "max_consumers": limits.max_consumers,
        "max_ack_pending": limits.max_ack_pending,
        "memory_max_stream_bytes": limits.memory_max_stream_bytes,
        "storage_max_stream_bytes": limits.storage_max_stream_bytes,
        "max_bytes_required": limits.max_bytes_required,
    }


def api_stats_json(stats: ApiStats) -> JsonDict:
    """The ``api`` object of account infos and monitoring."""
    shown: JsonDict = {"level": API_LEVEL, "total": stats.total, "errors": stats.errors}
    if stats.inflight:
        shown["inflight"] = stats.inflight
    return shown


def _usage_json(info: AccountInfo) -> JsonDict:
    return {
        "memory": info.memory,
        "storage": info.storage,
        "reserved_memory": info.reserved_memory,
        "reserved_storage": info.reserved_storage,
        "streams": info.streams,
        "consumers": info.consumers,
        "limits": account_limits_json(info.limits),
    }


def account_info_json(info: AccountInfo, api: ApiStats, domain: str = "") -> JsonDict:
    """An AccountInfo object (without the envelope)."""
    shown = _usage_json(info)
    if domain:
        shown["domain"] = domain
    if info.tiers:
        shown["tiers"] = {name: _usage_json(tier) for name, tier in info.tiers.items()}
    shown["api"] = api_stats_json(api)
    return shown


def pause_state_json(state: PauseState) -> JsonDict:
    """Body of a pause answer."""
    shown: JsonDict = {"paused": state.paused, "pause_until": format_time(state.pause_until_ns)}
    if state.pause_remaining_ns:
        shown["pause_remaining"] = min(state.pause_remaining_ns, INT64_MAX)
    return shown
