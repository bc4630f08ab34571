"""Defaults and refusals for stream configurations, with nats-server's texts.

Order of use: ``checked_stream`` (the configuration in itself) before anything is looked up; then, where the set of
streams cannot change in between, ``admit_create`` or ``admit_update``. All are pure; all raise ``ApiError``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

from jetstore.errors import ApiError
from jetstore.limits import SEQUENCE_MAX
from jetstore.model.api_errors import api_error
from jetstore.model.catalogue import Catalogue
from jetstore.model.consumer import ConsumerConfig
from jetstore.model.infos import AccountLimits, tier_of
from jetstore.model.server_limits import ServerLimits
from jetstore.model.source_checks import check_against, check_origins
from jetstore.model.stream import (
    DiscardPolicy,
    PersistMode,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from jetstore.model.subjects import collide, is_subset, is_valid_subject
from jetstore.model.times import format_duration
from jetstore.model.transforms import SubjectTransform, TransformError

NAME_BYTES_MAX: Final = 255
DESCRIPTION_BYTES_MAX: Final = 4 * 1024
METADATA_BYTES_MAX: Final = 128 * 1024
REPLICAS_MAX: Final = 5
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
DUPLICATE_WINDOW_NS: Final = 120 * SECOND
SHORTEST_NS: Final = 100 * MILLISECOND
"""Shortest max_age and duplicate_window."""

LEVEL_KEY: Final = "_nats.req.level"
DYNAMIC_KEYS: Final = frozenset({"_nats.ver", "_nats.level"})
"""Metadata that is shown in answers and never kept."""


def _invalid(text: str) -> ApiError:
    return api_error("JSStreamInvalidConfigF", err=text)


def _pedantic(text: str) -> ApiError:
    return api_error("JSPedanticErrF", err=text)


def is_asset_name(name: str) -> bool:
    """Whether a stream or consumer may be called this (length apart)."""
    return bool(name) and not any(character in " \t\r\n\f.*>\\/" for character in name)


def metadata_bytes(metadata: Mapping[str, str]) -> int:
    """Size of metadata as its limit counts it."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())


def without_server_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """What the user wrote: without the keys that servers add."""
    return {key: value for key, value in metadata.items() if key not in DYNAMIC_KEYS and key != LEVEL_KEY}


def refuse_unsupported(config: StreamConfig) -> None:
    """10052 naming the first feature this version does not have."""
    wanted = (("placement tags", config.placement is not None and bool(config.placement.tags)),)
    for feature, is_wanted in wanted:
        if is_wanted:
            raise _invalid(f"{feature} is not supported by this version of jetstore")


def checked_stream(
    config: StreamConfig, *, pedantic: bool = False, server: ServerLimits | None = None, is_create: bool = True
) -> StreamConfig:
    """The configuration with its defaults set; ``ApiError`` if it cannot be, whatever else exists.

    ``is_create`` adds what only a new stream may not have (``sealed``, ``mirror_direct`` without a mirror).
    """
    server = server or ServerLimits()
    _check_names(config)
    changes: dict[str, Any] = {}  # Any: field values
    if config.num_replicas > REPLICAS_MAX:
        raise _invalid(f"maximum replicas is {REPLICAS_MAX}")
    if config.num_replicas < 0:
        raise api_error("JSReplicasCountCannotBeNegative")
    changes["num_replicas"] = config.num_replicas or 1
    for name in ("max_msgs", "max_msgs_per_subject", "max_bytes", "max_msg_size", "max_consumers"):
        value = getattr(config, name)
        if value < -1 and pedantic:
            raise _pedantic(f"{name} must be set to -1")
        changes[name] = -1 if value < 1 else value
    changes["duplicate_window"] = _duplicate_window(config, pedantic, server)
    _check_policies(config)
    if config.deny_purge and config.allow_rollup_hdrs:
        raise _invalid("roll-ups require the purge permission")
    _check_counter(config)
    if config.allow_msg_schedules and config.mirror is None:
        if config.discard is DiscardPolicy.NEW:
            raise _invalid("message scheduling cannot use discard new")
        changes.update(allow_rollup_hdrs=True, deny_purge=False)
    changes.update(_marker_changes(config, pedantic))
    if is_create and config.sealed:
        raise _invalid("stream configuration for create can not be sealed")
    if is_create and config.mirror_direct and config.mirror is None:
        raise _invalid("stream has no mirror but does have mirror direct")
    _check_persist_mode(config)
    if config.placement is not None:
        if config.placement.preferred:
            raise _invalid("preferred server not permitted in placement")
        if not config.placement.cluster and not config.placement.tags:
            changes["placement"] = None
    check_origins(config)
    refuse_unsupported(config)
    if config.first_seq > SEQUENCE_MAX:
        raise _invalid(f"a first sequence above {SEQUENCE_MAX} is not supported by this version of jetstore")
    subjects = changes["subjects"] = _checked_subjects(config)
    _check_transform(config)
    if config.republish is not None:
        changes["republish"] = _checked_republish(config.republish, subjects)
    if config.sealed:
        changes.update(max_age=0, discard=DiscardPolicy.NEW, deny_delete=True, deny_purge=True, allow_rollup_hdrs=False)
    level = required_level(config, allows_ttl=changes.get("allow_msg_ttl", config.allow_msg_ttl))
    changes["metadata"] = dict(sorted({**without_server_metadata(config.metadata), LEVEL_KEY: str(level)}.items()))
    return config.model_copy(update=changes)


def required_level(config: StreamConfig, *, allows_ttl: bool) -> int:
    """The lowest API level of a server that can hold the stream."""
    if config.allow_batched:
        return 4
    is_async = config.persist_mode is PersistMode.ASYNC
    if config.allow_atomic or config.allow_msg_counter or config.allow_msg_schedules or is_async:
        return 2
    return 1 if allows_ttl else 0


def _check_names(config: StreamConfig) -> None:
    if not is_asset_name(config.name):
        raise _invalid("stream name is required and can not contain '.', '*', '>', '\\', '/'")
    if len(config.name.encode()) > NAME_BYTES_MAX:
        raise _invalid(f"stream name is too long, maximum allowed is {NAME_BYTES_MAX}")
    if len(config.description.encode()) > DESCRIPTION_BYTES_MAX:
        raise _invalid(f"stream description is too long, maximum allowed is {DESCRIPTION_BYTES_MAX}")
    if metadata_bytes(config.metadata) > METADATA_BYTES_MAX:
        raise _invalid(f"stream metadata exceeds maximum size of {METADATA_BYTES_MAX} bytes")


def _duplicate_window(config: StreamConfig, pedantic: bool, server: ServerLimits) -> int:
    if config.max_age < 0:
        raise _invalid("max age can not be negative")
    if 0 < config.max_age < SHORTEST_NS:
        raise _invalid("max age needs to be >= 100ms")
    window = config.duplicate_window
    if window < 0:
        raise _invalid("duplicates window can not be negative")
    if window == 0 and config.mirror is None and not config.sources:
        window = DUPLICATE_WINDOW_NS
        if 0 < server.duplicate_window_ns < window:
            if pedantic:
                raise _pedantic("duplicate window limits are higher than current limits")
            window = server.duplicate_window_ns
        if 0 < config.max_age < window:
            if pedantic:
                raise _pedantic("duplicate window cannot be bigger than max age")
            window = config.max_age
        return window
    if 0 < config.max_age < window:
        raise _invalid("duplicates window can not be larger then max age")
    if 0 < server.duplicate_window_ns < window:
        raise _invalid(
            "duplicates window can not be larger then server limit of " + format_duration(server.duplicate_window_ns)
        )
    if 0 < window < SHORTEST_NS:
        raise _invalid("duplicates window needs to be >= 100ms")
    return window


def _check_policies(config: StreamConfig) -> None:
    if config.discard_new_per_subject:
        if config.discard is not DiscardPolicy.NEW:
            raise _invalid("discard new per subject requires discard new policy to be set")
        if config.max_msgs_per_subject <= 0:
            raise _invalid("discard new per subject requires max msgs per subject > 0")


def _check_counter(config: StreamConfig) -> None:
    if not config.allow_msg_counter:
        return
    if config.discard is DiscardPolicy.NEW:
        raise _invalid("counter stream cannot use discard new")
    if config.allow_msg_ttl:
        raise _invalid("counter stream cannot use message TTLs")
    if config.allow_msg_schedules:
        raise _invalid("counter stream cannot use message schedules")
    if config.retention is not RetentionPolicy.LIMITS:
        raise _invalid("counter stream can only use limits retention")


def _check_persist_mode(config: StreamConfig) -> None:
    """``async`` allows acknowledgements before messages are durable. It is kept; nothing here makes use of it."""
    if config.persist_mode is not PersistMode.ASYNC:
        return
    if config.storage is not StorageType.FILE:
        raise _invalid("async persist mode is only supported on file storage")
    if config.num_replicas > 1:
        raise _invalid("async persist mode is not supported on replicated streams")
    if config.allow_atomic:
        raise _invalid("async persist mode is not supported with atomic batch publish")


def _marker_changes(config: StreamConfig, pedantic: bool) -> dict[str, bool]:
    ttl = config.subject_delete_marker_ttl
    if ttl == 0:
        return {}
    if config.mirror is not None:
        raise _invalid("subject delete markers forbidden on mirrors")
    if ttl < 0:
        raise _invalid("subject delete marker TTL must not be negative")
    if ttl < SECOND:
        raise _invalid("subject delete marker TTL must be at least 1 second")
    if pedantic and not config.allow_msg_ttl:
        raise _invalid("subject delete marker cannot be set if message TTLs are disabled")
    if pedantic and not config.allow_rollup_hdrs:
        raise _invalid("subject delete marker cannot be set if roll-ups are disabled")
    return {"allow_msg_ttl": True, "allow_rollup_hdrs": True, "deny_purge": False}


def _checked_subjects(config: StreamConfig) -> tuple[str, ...]:
    subjects = config.subjects
    if not subjects:
        return () if config.mirror is not None or config.sources else (config.name,)
    for subject in subjects:
        if not is_valid_subject(subject):
            raise _invalid("invalid subject")
        if config.no_ack:
            continue
        if subject == ">":
            raise _invalid("capturing all subjects requires no-ack to be true")
        for reserved in ("$JS.>", "$JSC.>", "$NRG.>"):
            if collide(subject, reserved) and not is_subset(subject, "$JS.EVENT.>"):
                raise _invalid("subjects that overlap with jetstream api require no-ack to be true")
        if collide(subject, "$SYS.>") and not is_subset(subject, "$SYS.ACCOUNT.>"):
            raise _invalid("subjects that overlap with system api require no-ack to be true")
    for left, right in combinations(subjects, 2):
        if collide(left, right):
            raise _invalid(f'subject "{left}" overlaps with "{right}"')
    return subjects


def _check_transform(config: StreamConfig) -> None:
    transform = config.subject_transform
    if transform is None:
        return
    if transform.src and not is_valid_subject(transform.src):
        raise api_error("JSStreamTransformInvalidSource", err=f"invalid subject {transform.src}")
    if not transform.dest:
        return
    try:
        SubjectTransform(transform.src, transform.dest)
    except TransformError as error:
        raise api_error("JSStreamTransformInvalidDestination", err=error) from None


def _checked_republish(republish: RePublish, subjects: Sequence[str]) -> RePublish:
    src = republish.src or ">"
    if republish.dest:
        if any(collide(republish.dest, subject) for subject in subjects):
            raise _invalid("stream configuration for republish destination forms a cycle")
        try:
            SubjectTransform(src, republish.dest)
        except TransformError:
            raise _invalid(
                f"stream configuration for republish with transform from '{src}' to '{republish.dest}' not valid"
            ) from None
    return republish.model_copy(update={"src": src})


def is_same_stream(left: StreamConfig, right: StreamConfig) -> bool:
    """Whether both ask for the same stream: everything but what servers add to the metadata."""
    if without_server_metadata(left.metadata) != without_server_metadata(right.metadata):
        return False
    return left.model_copy(update={"metadata": {}}) == right.model_copy(update={"metadata": {}})


def _of_tier(config: StreamConfig, account: AccountLimits) -> tuple[AccountLimits, str]:
    """What bounds streams with so many replicas, and the tier that it bounds together ("": all). Raises 10120."""
    limits = account.of(config.num_replicas)
    if limits is None:
        raise api_error("JSNoLimitsErr")
    return limits, tier_of(config.num_replicas) if account.tiers else ""


def _check_max_bytes(config: StreamConfig, account: AccountLimits) -> None:
    in_memory = config.storage is StorageType.MEMORY
    if config.max_bytes <= 0 and account.max_bytes_required:
        raise api_error("JSStreamMaxBytesRequired")
    per_stream = account.memory_max_stream_bytes if in_memory else account.storage_max_stream_bytes
    if per_stream > 0 and config.max_bytes > per_stream:
        raise api_error("JSStreamMaxStreamBytesExceeded")


def _check_room(
    config: StreamConfig,
    tier: str,
    existing: Catalogue,
    account: AccountLimits,
    server: ServerLimits,
    least: int = 0,
) -> None:
    """The account's limits bound the streams of a tier together; the server's bound all."""
    in_memory = config.storage is StorageType.MEMORY
    size = max(config.max_bytes, least)
    if size <= 0:
        return
    of_account = account.max_memory if in_memory else account.max_storage
    of_server = server.max_memory_bytes if in_memory else server.max_storage_bytes
    is_beyond = 0 <= of_account < size + existing.reserved(config.storage, tier, but=config.name)
    if is_beyond or 0 < of_server < size + existing.reserved(config.storage, but=config.name):
        raise api_error("JSMemoryResourcesExceededErr" if in_memory else "JSStorageResourcesExceededErr")


def _check_overlap(config: StreamConfig, existing: Catalogue) -> None:
    if any(owner != config.name for subject in config.subjects for owner in existing.colliding(subject)):
        raise api_error("JSStreamSubjectOverlapErr")


def _check_replicas(config: StreamConfig, server: ServerLimits) -> None:
    if config.num_replicas > 1 and server.replicas_max == 1:
        raise api_error("JSStreamReplicasNotSupportedErr")
    if config.num_replicas > server.replicas_max:
        raise api_error("JSClusterNoPeersErrF", err=f"no suitable peers for placement, {server.replicas_max} nodes")


def _check_origins_of(config: StreamConfig, existing: Catalogue, server: ServerLimits) -> None:
    if server.replicas_max > 1 and (config.mirror is not None or config.sources):
        raise _invalid("mirrors and sources on a cluster are not supported by this version of jetstore")
    check_against(config, existing)


def admit_create(
    config: StreamConfig,
    existing: Catalogue,
    account: AccountLimits | None = None,
    server: ServerLimits | None = None,
    *,
    replaces: bool = False,
) -> bool:
    """True if the stream is to be created, False if an identical one exists. ``config`` must be checked already.

    ``replaces``: as if a stream with its name were gone. Refusals: 10120 (no tier for so many replicas), 10113/10122
    (``max_bytes``), 10058 (exists, different), 10074 (replicas), 10027 (too many streams), 10028/10047 (room), 10065
    (subject overlap).
    """
    limits, tier = _of_tier(config, account or AccountLimits())
    _check_max_bytes(config, limits)
    _check_replicas(config, server or ServerLimits())
    current = existing.get(config.name)
    if current is not None and not replaces:
        if is_same_stream(current, config):
            return False
        raise api_error("JSStreamNameExistErr")
    _check_origins_of(config, existing, server or ServerLimits())
    if 0 < limits.max_streams <= existing.count(tier, but=config.name):
        raise api_error("JSMaximumStreamsLimitErr")
    _check_room(config, tier, existing, limits, server or ServerLimits(), least=1)
    _check_overlap(config, existing)
    return True


def _check_nobody_copies(config: StreamConfig, existing: Catalogue) -> None:
    """What is not copied yet would go at once: mirrors and sources of limits streams have no consumers there."""
    copy = min((name for name in existing.copies_of(config.name) if name != config.name), default="")
    if copy:
        what = f'to interest retention while stream "{copy}" copies from it'
        raise _invalid(f"a change {what} is not supported by this version of jetstore")


def admit_update(
    current: StreamConfig,
    config: StreamConfig,
    existing: Catalogue,
    *,
    consumers: Sequence[ConsumerConfig] = (),
    pedantic: bool = False,
    account: AccountLimits | None = None,
    server: ServerLimits | None = None,
) -> StreamConfig:
    """The configuration to apply in place of ``current``; ``ApiError`` where the change is not allowed.

    ``config`` must be checked already (``is_create=False``).
    """
    account = account or AccountLimits()
    found = account.of(config.num_replicas)
    if found is not None:  # without such a tier it comes after other refusals
        _check_max_bytes(config, found)
    if config.mirror is not None and config.mirror != current.mirror:
        raise api_error("JSStreamMirrorNotUpdatableErr")
    _check_origins_of(config, existing, server or ServerLimits())
    if config.storage is not current.storage:
        raise _invalid("stream configuration update can not change storage type")
    if config.retention is not current.retention and RetentionPolicy.WORKQUEUE in (config.retention, current.retention):
        raise _invalid("stream configuration update can not change retention policy to/from workqueue")
    if config.retention is RetentionPolicy.INTEREST and current.retention is RetentionPolicy.LIMITS:
        _check_nobody_copies(config, existing)
    if current.sealed and not config.sealed:
        raise _invalid("stream configuration update can not unseal a sealed stream")
    if current.deny_delete and not config.deny_delete:
        raise _invalid("stream configuration update can not cancel deny message deletes")
    if current.deny_purge and not config.deny_purge:
        raise _invalid("stream configuration update can not cancel deny purge")
    if current.allow_msg_ttl and not config.allow_msg_ttl:
        raise _invalid("message TTL status can not be disabled")
    if current.allow_msg_schedules and not config.allow_msg_schedules:
        raise _invalid("message schedules can not be disabled")
    if config.allow_msg_counter is not current.allow_msg_counter:
        raise _invalid("stream configuration update can not change message counter setting")
    if _durable_mode(config) != _durable_mode(current):
        raise _invalid("stream configuration update can not change persist mode")
    _check_replicas(config, server or ServerLimits())
    limits = config.consumer_limits
    if limits != current.consumer_limits:
        violators = [consumer.name for consumer in consumers if _violates(consumer, config)]
        if violators:
            raise api_error(
                "JSStreamUpdateErrF", err="change to limits violates consumers: " + ", ".join(sorted(violators))
            )
    bounds, tier = _of_tier(config, account)
    is_moved = bounds.max_streams > 0 and tier_of(config.num_replicas) != tier_of(current.num_replicas)
    if account.tiers and is_moved and existing.count(tier, but=config.name) >= bounds.max_streams:
        raise api_error("JSMaximumStreamsLimitErr")
    _check_room(config, tier, existing, bounds, server or ServerLimits())
    _check_overlap(config, existing)
    return config


def _durable_mode(config: StreamConfig) -> PersistMode:
    return PersistMode.DEFAULT if config.persist_mode is PersistMode.UNSET else config.persist_mode


def _violates(consumer: ConsumerConfig, config: StreamConfig) -> bool:
    limits = config.consumer_limits
    too_many = 0 < limits.max_ack_pending < consumer.max_ack_pending
    too_long = 0 < limits.inactive_threshold < consumer.inactive_threshold
    return too_many or too_long
