"""Refusals for mirrors and sources, with nats-server's texts, and the keys that positions in origins are kept under."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Final

from jetstore.model.api_errors import api_error
from jetstore.model.stream import RetentionPolicy, StreamConfig, StreamSource
from jetstore.model.subjects import collide, is_valid_subject
from jetstore.model.transforms import SubjectTransform, TransformError

MIRROR_KEY: Final = "mirror"


def source_key(source: StreamSource) -> str:
    """What tells one source of a stream from its others."""
    transforms = [[transform.src, transform.dest] for transform in source.subject_transforms]
    return json.dumps([source.name, source.filter_subject, transforms], ensure_ascii=False, separators=(",", ":"))


def origin_keys(config: StreamConfig) -> tuple[str, ...]:
    """The keys of a stream's mirror or sources, in order."""
    mirror = (MIRROR_KEY,) if config.mirror is not None else ()
    return mirror + tuple(map(source_key, config.sources))


def origins_of(config: StreamConfig) -> Iterator[StreamSource]:
    """Its mirror or its sources."""
    if config.mirror is not None:
        yield config.mirror
    yield from config.sources


def check_origins(config: StreamConfig) -> None:
    """What is wrong with a mirror or with sources in themselves."""
    if config.mirror is not None:
        _check_mirror(config, config.mirror)
    for source in config.sources:
        _check_source(config, source)
    keys = [(source_key(source), source.external, source.consumer) for source in config.sources]
    if any(keys.count(key) > 1 for key in keys):
        raise api_error("JSSourceDuplicateDetected")


def _check_mirror(config: StreamConfig, mirror: StreamSource) -> None:
    for is_wrong, name in (
        (config.allow_msg_counter, "JSMirrorWithCountersErr"),
        (config.allow_atomic, "JSMirrorWithAtomicPublishErr"),
        (config.allow_batched, "JSMirrorWithBatchPublishErr"),
        (config.allow_msg_schedules, "JSMirrorWithMsgSchedulesErr"),
        (config.first_seq > 0, "JSMirrorWithFirstSeqErr"),
        (bool(config.subjects), "JSMirrorWithSubjectsErr"),
        (bool(config.sources), "JSMirrorWithSourcesErr"),
        (not _is_name(mirror.name), "JSMirrorInvalidStreamName"),
        (bool(mirror.filter_subject and mirror.subject_transforms), "JSMirrorMultipleFiltersNotAllowed"),
    ):
        if is_wrong:
            raise api_error(name)
    _check_transforms(mirror, "Mirror", "JSMirrorInvalidTransformDestination")
    if config.retention is not RetentionPolicy.LIMITS:
        raise _unsupported("a mirror with other than limits retention")


def _check_source(config: StreamConfig, source: StreamSource) -> None:
    if config.allow_msg_schedules:
        raise api_error("JSSourceWithMsgSchedulesErr")
    if not _is_name(source.name):
        raise api_error("JSSourceInvalidStreamName")
    if source.filter_subject and source.subject_transforms:
        raise api_error("JSSourceMultipleFiltersNotAllowed")
    _check_transforms(source, "Source", "JSSourceInvalidTransformDestination")
    if config.allow_msg_counter:
        raise _unsupported("a stream of counters with sources")


def _check_transforms(source: StreamSource, kind: str, bad_destination: str) -> None:
    for transform in source.subject_transforms:
        if transform.src and not is_valid_subject(transform.src):
            raise api_error(f"JS{kind}InvalidSubjectFilter", err=f"invalid subject {transform.src}")
        if transform.dest:
            try:
                SubjectTransform(transform.src, transform.dest)
            except TransformError as error:
                raise api_error(bad_destination, err=error) from None
    filters = [transform.src or ">" for transform in source.subject_transforms]
    if any(collide(left, right) for left, right in permutations(filters, 2)):
        raise api_error(f"JS{kind}OverlappingSubjectFilters")
    if source.external is not None:
        raise _unsupported("an external mirror or source")
    if source.consumer is not None:
        raise _unsupported("a mirror or source with a consumer of its own")


def _is_name(name: str) -> bool:
    return bool(name) and not any(character in " \t\r\n\f.*>\\/" for character in name)


def _unsupported(feature: str) -> Exception:
    return api_error("JSStreamInvalidConfigF", err=f"{feature} is not supported by this version of jetstore")


def check_against(config: StreamConfig, existing: Mapping[str, StreamConfig]) -> None:
    """What is wrong with a mirror or sources beside the streams that exist: cycles and sizes."""
    if config.mirror is None and not config.sources:
        return
    seen: set[str] = set()
    waiting = [source.name for source in origins_of(config)]
    while waiting:
        name = waiting.pop()
        if name == config.name:
            raise api_error("JSStreamInvalidConfigF", err="detected cycle")
        if name not in seen and name in existing:
            seen.add(name)
            waiting += [source.name for source in origins_of(existing[name])]
    for source in origins_of(config):
        origin = existing.get(source.name)
        if origin is None:
            continue
        if config.max_msg_size > 0 and (origin.max_msg_size <= 0 or origin.max_msg_size > config.max_msg_size):
            is_mirror = config.mirror is not None
            raise api_error("JSMirrorMaxMessageSizeTooBigErr" if is_mirror else "JSSourceMaxMessageSizeTooBigErr")


def follow_origin(config: StreamConfig, existing: Mapping[str, StreamConfig]) -> StreamConfig:
    """A mirror lets itself be read directly where its origin does."""
    origin = existing.get(config.mirror.name) if config.mirror is not None else None
    if origin is None or config.mirror_direct is origin.allow_direct:
        return config
    return config.model_copy(update={"mirror_direct": origin.allow_direct})
