"""Defaults and refusals for consumer configurations, with nats-server's texts.

Order of use, where the stream's set of consumers cannot change in between: ``checked_consumer`` (the configuration
against its stream), then ``admit_consumer`` (against the consumers that exist). Pure; all raise ``ApiError``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import permutations
from typing import Any, Final

from jetstore.errors import ApiError
from jetstore.model.api_errors import api_error
from jetstore.model.consumer import (
    AckPolicy,
    ConsumerAction,
    ConsumerConfig,
    DeliverPolicy,
    PriorityPolicy,
)
from jetstore.model.infos import AccountLimits
from jetstore.model.levels import consumer_level
from jetstore.model.server_limits import ServerLimits
from jetstore.model.stream import RetentionPolicy, StreamConfig
from jetstore.model.stream_checks import (
    DESCRIPTION_BYTES_MAX,
    LEVEL_KEY,
    METADATA_BYTES_MAX,
    MILLISECOND,
    NAME_BYTES_MAX,
    SECOND,
    is_asset_name,
    metadata_bytes,
    without_server_metadata,
)
from jetstore.model.subjects import collide, is_literal, is_subset, is_valid_subject
from jetstore.model.times import format_duration

ACK_WAIT_NS: Final = 30 * SECOND
EPHEMERAL_INACTIVE_NS: Final = 5 * SECOND
MAX_ACK_PENDING: Final = 1000
MAX_WAITING: Final = 512
HEARTBEAT_MIN_NS: Final = 100 * MILLISECOND
FLOW_HEARTBEAT_NS: Final = SECOND
"""Which heartbeats a consumer has whose flow control acknowledges."""
PRIORITY_TIMEOUT_NS: Final = 120 * SECOND
"""How long a pinned client may not ask before somebody else is pinned, by default."""

_GROUP_NAME: Final = re.compile(r"[A-Za-z0-9/_=-]{1,16}")


def check_consumer_name(name: str) -> None:
    """10127 or 10052 if a consumer cannot be called this."""
    if "/" in name or "\\" in name:
        raise api_error("JSConsumerNameContainsPathSeparatorsErr")
    if not is_asset_name(name):
        raise api_error("JSStreamInvalidConfigF", err="consumer name can not contain '.', '*', '>', '\\', '/'")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise api_error("JSConsumerNameTooLongErrF", max=NAME_BYTES_MAX)


def check_consumer_replicas(config: ConsumerConfig, server: ServerLimits) -> None:
    """What a lone server refuses before it looks for the stream: 10074."""
    if config.num_replicas > 1 and server.replicas_max == 1:
        raise api_error("JSStreamReplicasNotSupportedErr")


def checked_consumer(
    config: ConsumerConfig,
    stream: StreamConfig,
    *,
    pedantic: bool = False,
    account: AccountLimits | None = None,
    server: ServerLimits | None = None,
) -> ConsumerConfig:
    """The configuration with its defaults set, valid for ``stream``; ``ApiError`` otherwise."""
    account, server = account or AccountLimits(), server or ServerLimits()
    config = _with_defaults(config, stream, pedantic, account, server)
    if config.durable_name and len(config.durable_name.encode()) > NAME_BYTES_MAX:
        raise api_error("JSConsumerNameTooLongErrF", max=NAME_BYTES_MAX)
    check_consumer_replicas(config, server)
    if config.num_replicas > stream.num_replicas:
        raise api_error("JSConsumerReplicasExceedsStream")
    is_limits = stream.retention is RetentionPolicy.LIMITS
    if not is_limits and not config.direct and config.num_replicas not in (0, stream.num_replicas):
        raise api_error("JSConsumerReplicasShouldMatchStream")
    if len(config.description.encode()) > DESCRIPTION_BYTES_MAX:
        raise api_error("JSConsumerDescriptionTooLongErrF", max=DESCRIPTION_BYTES_MAX)
    if metadata_bytes(config.metadata) > METADATA_BYTES_MAX:
        raise api_error("JSConsumerMetadataLengthErrF", limit=f"{METADATA_BYTES_MAX // 1024}KB")
    if config.ack_policy is AckPolicy.FLOW_CONTROL:
        _check_flow_controlled(config)
    if config.is_push:
        _check_push(config, stream)
    else:
        _check_pull(config, server)
    _check_priority(config)
    _check_limits(config, stream, account, server)
    _check_start(config)
    _check_filters(config)
    _check_sampling(config)
    if stream.retention is RetentionPolicy.WORKQUEUE and not config.direct:
        if config.ack_policy not in (AckPolicy.EXPLICIT, AckPolicy.FLOW_CONTROL):
            pull_none = not config.is_push and config.ack_policy is AckPolicy.NONE
            raise api_error("JSConsumerPullRequiresAckErr" if pull_none else "JSConsumerWQRequiresExplicitAckErr")
        if config.deliver_policy is not DeliverPolicy.ALL:
            raise api_error("JSConsumerWQConsumerNotDeliverAllErr")
    if config.sourcing:
        raise unsupported("sourcing")
    return config


def unsupported(feature: str) -> ApiError:
    """10012 naming a feature this version does not have."""
    return api_error("JSConsumerCreateErrF", err=f"{feature} is not supported by this version of jetstore")


def _with_defaults(
    config: ConsumerConfig, stream: StreamConfig, pedantic: bool, account: AccountLimits, server: ServerLimits
) -> ConsumerConfig:
    changes: dict[str, Any] = {}  # Any: field values
    if config.num_replicas < 0:
        raise api_error("JSReplicasCountCannotBeNegative")
    if config.ack_wait < 0:
        raise api_error("JSConsumerAckWaitNegativeErr")
    if any(step < 0 for step in config.backoff):
        raise api_error("JSConsumerBackOffNegativeErr")
    if config.deliver_policy is DeliverPolicy.UNDEFINED:
        changes["deliver_policy"] = DeliverPolicy.ALL
    for name in ("max_deliver", "max_waiting", "max_ack_pending", "max_batch", "max_expires", "max_bytes"):
        value = getattr(config, name)
        lowest = -1 if name in ("max_deliver", "max_ack_pending") else 0
        if value < lowest:
            if pedantic:
                raise api_error("JSPedanticErrF", err=f"{name} must be set to {lowest}")
            changes[name] = lowest
    for name in ("idle_heartbeat", "inactive_threshold"):
        if getattr(config, name) < 0:
            if pedantic:
                raise api_error("JSPedanticErrF", err=f"{name} must be set to 0")
            changes[name] = 0
    config = config.model_copy(update=changes) if changes else config
    changes = {"metadata": _with_level(config)}
    if config.max_deliver == 0:
        changes["max_deliver"] = -1
    if not config.is_push and config.max_waiting == 0:
        changes["max_waiting"] = MAX_WAITING
    if config.backoff:
        if pedantic and config.ack_wait not in (0, config.backoff[0]):
            raise api_error("JSPedanticErrF", err="first backoff value has to equal batch AckWait")
        changes["ack_wait"] = config.backoff[0]
    elif config.ack_policy in (AckPolicy.EXPLICIT, AckPolicy.ALL) and config.ack_wait == 0:
        changes["ack_wait"] = ACK_WAIT_NS
    if config.ack_policy is not AckPolicy.NONE and config.max_ack_pending == 0:
        changes["max_ack_pending"] = _default_max_ack_pending(stream, account, server)
    if config.inactive_threshold == 0:
        default = 0 if config.is_durable else EPHEMERAL_INACTIVE_NS
        changes["inactive_threshold"] = stream.consumer_limits.inactive_threshold or default
    if config.ack_policy is AckPolicy.FLOW_CONTROL and config.is_push and not pedantic:
        changes |= {"flow_control": True, "idle_heartbeat": FLOW_HEARTBEAT_NS}
    if config.priority_policy is PriorityPolicy.PINNED_CLIENT and config.priority_timeout == 0:
        changes["priority_timeout"] = PRIORITY_TIMEOUT_NS
    if not config.is_push and config.max_batch == 0 and server.max_request_batch > 0:
        changes["max_batch"] = server.max_request_batch
    return config.model_copy(update=changes)


def _with_level(config: ConsumerConfig) -> dict[str, str]:
    has_priority = config.priority_policy is not PriorityPolicy.NONE or bool(config.priority_groups)
    has_flow = config.ack_policy is AckPolicy.FLOW_CONTROL
    level = consumer_level(is_paused=bool(config.pause_until), has_priority=has_priority, has_flow=has_flow)
    return dict(sorted({**without_server_metadata(config.metadata), LEVEL_KEY: level}.items()))


def _default_max_ack_pending(stream: StreamConfig, account: AccountLimits, server: ServerLimits) -> int:
    wanted = stream.consumer_limits.max_ack_pending or MAX_ACK_PENDING
    bounds = [bound for bound in (account.max_ack_pending, server.max_ack_pending) if bound > 0]
    return min([wanted, *bounds])


def _check_flow_controlled(config: ConsumerConfig) -> None:
    """Of a consumer that is acknowledged by its answers to flow control requests."""
    if not config.is_push:
        raise api_error("JSConsumerAckFCRequiresPushErr")
    if not config.flow_control:
        raise api_error("JSConsumerAckFCRequiresFCErr")
    if config.idle_heartbeat != FLOW_HEARTBEAT_NS:
        raise api_error("JSStreamInvalidConfigF", err="flow control ack policy heartbeat needs to be 1s")
    if config.max_ack_pending <= 0:
        raise api_error("JSConsumerAckFCRequiresMaxAckPendingErr")
    if config.ack_wait or config.backoff:
        raise api_error("JSConsumerAckFCRequiresNoAckWaitErr")
    if config.max_deliver > 0:
        raise api_error("JSConsumerAckFCRequiresNoMaxDeliverErr")


def _check_push(config: ConsumerConfig, stream: StreamConfig) -> None:
    if not is_valid_subject(config.deliver_subject):
        raise api_error("JSConsumerInvalidDeliverSubject")
    if not is_literal(config.deliver_subject):
        raise api_error("JSConsumerDeliverToWildcardsErr")
    if any(is_subset(config.deliver_subject, subject) for subject in stream.subjects):
        raise api_error("JSConsumerDeliverCycleErr")
    if config.max_waiting:
        raise api_error("JSConsumerPushMaxWaitingErr")
    if config.max_ack_pending > 0 and config.ack_policy is AckPolicy.NONE:
        raise api_error("JSConsumerMaxPendingAckPolicyRequiredErr")
    if 0 < config.idle_heartbeat < HEARTBEAT_MIN_NS:
        raise api_error("JSConsumerSmallHeartbeatErr")
    if config.flow_control and not config.idle_heartbeat:
        raise api_error("JSConsumerWithFlowControlNeedsHeartbeats")
    if config.direct and config.is_durable:
        raise api_error("JSConsumerDirectRequiresEphemeralErr")
    if config.priority_groups or config.priority_policy is not PriorityPolicy.NONE:
        raise api_error("JSConsumerPushWithPriorityGroupErr")


def _check_pull(config: ConsumerConfig, server: ServerLimits) -> None:
    if config.rate_limit_bps:
        raise api_error("JSConsumerPullWithRateLimitErr")
    if config.idle_heartbeat:
        raise api_error("JSConsumerHBRequiresPushErr")
    if config.flow_control:
        raise api_error("JSConsumerFCRequiresPushErr")
    if 0 < server.max_request_batch < config.max_batch:
        raise api_error("JSConsumerMaxRequestBatchExceededF", limit=server.max_request_batch)
    if 0 < config.max_expires < MILLISECOND:
        raise api_error("JSConsumerMaxRequestExpiresTooSmall")
    if config.direct:
        raise api_error("JSConsumerDirectRequiresPushErr")


def _check_priority(config: ConsumerConfig) -> None:
    if config.priority_policy is PriorityPolicy.NONE:
        if config.priority_groups:
            raise api_error("JSConsumerPriorityGroupWithPolicyNone")
        if config.priority_timeout:
            raise api_error("JSConsumerPinnedTTLWithoutPriorityPolicyNone")
        return
    if not config.priority_groups:
        raise api_error("JSConsumerPriorityPolicyWithoutGroup")
    for group in config.priority_groups:
        if not group:
            raise api_error("JSConsumerEmptyGroupName")
        if not _GROUP_NAME.fullmatch(group):
            raise api_error("JSConsumerInvalidGroupNameErr")


def _check_limits(config: ConsumerConfig, stream: StreamConfig, account: AccountLimits, server: ServerLimits) -> None:
    if config.backoff and 0 < config.max_deliver < len(config.backoff):
        raise api_error("JSConsumerMaxDeliverBackoffErr")
    for bound in (stream.consumer_limits.max_ack_pending, account.max_ack_pending, server.max_ack_pending):
        if 0 < bound < config.max_ack_pending:
            raise api_error("JSConsumerMaxPendingAckExcessErrF", limit=bound)
    bound = stream.consumer_limits.inactive_threshold
    if 0 < bound < config.inactive_threshold:
        raise api_error("JSConsumerInactiveThresholdExcess", limit=format_duration(bound))


_START_NAMES: Final = {
    DeliverPolicy.ALL: "all",
    DeliverPolicy.LAST: "last",
    DeliverPolicy.NEW: "new",
    DeliverPolicy.LAST_PER_SUBJECT: "last per subject",
    DeliverPolicy.BY_START_SEQUENCE: "by start sequence",
    DeliverPolicy.BY_START_TIME: "by start time",
}


def _check_start(config: ConsumerConfig) -> None:
    policy = config.deliver_policy
    start = f"consumer delivery policy is deliver {_START_NAMES[policy]}, but optional"
    complaint = ""
    if policy is DeliverPolicy.BY_START_SEQUENCE:
        if not config.opt_start_seq:
            complaint = "start sequence is not set"
        elif config.opt_start_time:
            complaint = "start time is also set"
    elif policy is DeliverPolicy.BY_START_TIME:
        if not config.opt_start_time:
            complaint = "start time is not set"
        elif config.opt_start_seq:
            complaint = "start start sequence is also set"
    elif config.opt_start_seq:
        complaint = "start sequence is also set"
    elif config.opt_start_time:
        complaint = "start time is also set"
    elif policy is DeliverPolicy.LAST_PER_SUBJECT and not config.filters:
        complaint = "filter subject is not set"
    if complaint:
        raise api_error("JSConsumerInvalidPolicyErrF", err=f"{start} {complaint}")


def _check_filters(config: ConsumerConfig) -> None:
    if config.filter_subject and config.filter_subjects:
        raise api_error("JSConsumerDuplicateFilterSubjects")
    for subject in config.filter_subjects:
        if not subject:
            raise api_error("JSConsumerEmptyFilter")
    for subject in config.filters:
        if not is_valid_subject(subject):
            raise api_error("JSStreamInvalidConfigF", err="invalid subject")
    for left, right in permutations(config.filter_subjects, 2):
        if is_subset(left, right):
            raise api_error("JSConsumerOverlappingSubjectFilters")


def _check_sampling(config: ConsumerConfig) -> None:
    text = config.sample_freq.removesuffix("%")
    if not config.sample_freq:
        return
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise api_error("JSConsumerInvalidSamplingErrF", err=f'strconv.Atoi: parsing "{text}": invalid syntax')
    if len(text) > 1_000 or abs(int(text)) >= 2**63:
        raise api_error("JSConsumerInvalidSamplingErrF", err=f'strconv.Atoi: parsing "{text}": value out of range')
    if int(text) < 0:
        raise api_error("JSConsumerInvalidSamplingErrF", err="<nil>")


def check_priority_group(group: str, config: ConsumerConfig) -> None:
    """10162 for a bad name, 10160 if the consumer has no such group."""
    if not _GROUP_NAME.fullmatch(group):
        raise api_error("JSConsumerInvalidGroupNameErr")
    if config.priority_policy is PriorityPolicy.NONE or group not in config.priority_groups:
        raise api_error("JSConsumerInvalidPriorityGroupErr")


def is_same_consumer(left: ConsumerConfig, right: ConsumerConfig) -> bool:
    """Whether both (checked) configurations ask for the same consumer."""
    if without_server_metadata(left.metadata) != without_server_metadata(right.metadata):
        return False
    return left.model_copy(update={"metadata": {}}) == right.model_copy(update={"metadata": {}})


_IMMUTABLE: Final = (
    ("deliver_policy", "deliver policy can not be updated"),
    ("opt_start_seq", "start sequence can not be updated"),
    ("opt_start_time", "start time can not be updated"),
    ("ack_policy", "ack policy can not be updated"),
    ("replay_policy", "replay policy can not be updated"),
    ("idle_heartbeat", "heart beats can not be updated"),
    ("flow_control", "flow control can not be updated"),
)


def admit_consumer(
    config: ConsumerConfig,
    stream: StreamConfig,
    existing: Mapping[str, ConsumerConfig],
    action: ConsumerAction = ConsumerAction.CREATE_OR_UPDATE,
    *,
    is_deliver_subject_in_use: bool = False,
    account: AccountLimits | None = None,
) -> ConsumerConfig | None:
    """The configuration to create or to put in place of the existing one; None if it is there exactly so.

    ``config`` must be checked already. ``is_deliver_subject_in_use``: somebody subscribes to the existing push
    consumer's deliver subject (then it cannot be changed: 10013).
    10148/10149 (action), 10012 (immutable field), 10026 (limit), 10099/10100 (work queue).
    """
    current = existing.get(config.name)
    if current is None:
        if action is ConsumerAction.UPDATE:
            raise api_error("JSConsumerDoesNotExist")
        _check_count(config, stream, existing, account or AccountLimits())
        _check_workqueue(config, stream, existing)
        return config
    if current.pause_until != config.pause_until:
        # A re-create never changes the pause; the PAUSE request does.
        config = config.model_copy(update={"pause_until": current.pause_until})
        config = config.model_copy(update={"metadata": _with_level(config)})
    if is_same_consumer(current, config):
        return None
    if action is ConsumerAction.CREATE:
        raise api_error("JSConsumerAlreadyExists")
    _check_update(current, config, is_deliver_subject_in_use)
    _check_workqueue(config, stream, existing)
    return config


def _check_update(current: ConsumerConfig, config: ConsumerConfig, is_deliver_subject_in_use: bool) -> None:
    for name, text in _IMMUTABLE:
        if getattr(current, name) != getattr(config, name):
            raise api_error("JSConsumerCreateErrF", err=text)
    if current.is_push != config.is_push:
        kinds = ("push", "pull") if current.is_push else ("pull", "push")
        raise api_error("JSConsumerCreateErrF", err=f"can not update {kinds[0]} consumer to {kinds[1]} based")
    if not config.is_push and current.max_waiting != config.max_waiting:
        raise api_error("JSConsumerCreateErrF", err="max waiting can not be updated")
    if current.mem_storage != config.mem_storage:
        raise api_error("JSConsumerCreateErrF", err="storage type can not be updated")
    if current.deliver_subject != config.deliver_subject and is_deliver_subject_in_use:
        raise api_error("JSConsumerNameExistErr")


def _check_count(
    config: ConsumerConfig, stream: StreamConfig, existing: Mapping[str, ConsumerConfig], account: AccountLimits
) -> None:
    if config.direct:
        return
    count = sum(not (other.direct or other.sourcing) for other in existing.values())
    for bound in (stream.max_consumers, account.max_consumers):
        if 0 < bound <= count:
            raise api_error("JSMaximumConsumersLimitErr")


def _check_workqueue(config: ConsumerConfig, stream: StreamConfig, existing: Mapping[str, ConsumerConfig]) -> None:
    if stream.retention is not RetentionPolicy.WORKQUEUE or config.direct:
        return
    for name, other in existing.items():
        if name == config.name or other.direct or other.sourcing:
            continue
        if not config.filters:
            raise api_error("JSConsumerWQMultipleUnfilteredErr")
        if not other.filters or any(collide(mine, theirs) for mine in config.filters for theirs in other.filters):
            raise api_error("JSConsumerWQConsumerNotUniqueErr")


def check_reset(config: ConsumerConfig, seq: int, first_seq_at_start: int) -> None:
    """10204 unless a reset to ``seq`` (0 = above the ack floor) is allowed.

    ``first_seq_at_start``: for ``by_start_time``, the first sequence at or after that time; else unused.
    """
    problem = ""
    if seq and config.deliver_policy is DeliverPolicy.BY_START_SEQUENCE:
        problem = "below start seq" if seq < config.opt_start_seq else ""
    elif seq and config.deliver_policy is DeliverPolicy.BY_START_TIME:
        problem = "below start time" if seq < first_seq_at_start else ""
    elif seq and config.deliver_policy is not DeliverPolicy.ALL:
        problem = "not allowed"
    if problem:
        raise api_error("JSConsumerInvalidResetErr", err=problem)
