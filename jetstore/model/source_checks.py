"""Refusals for mirrors and sources, with nats-server's texts, and the keys that positions in origins are kept under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Final

from jetstore.model.api_errors import api_error
from jetstore.model.stream import RetentionPolicy, StreamConfig, StreamSource
from jetstore.model.subjects import collide, is_valid_literal, is_valid_subject
from jetstore.model.transforms import SubjectTransform, TransformError

MIRROR_KEY: Final = "mirror"
API_PREFIX: Final = "$JS.API"
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def source_key(source: StreamSource) -> str:
    """What tells one source of a stream from its others."""
    transforms = [[transform.src, transform.dest] for transform in source.subject_transforms]
    key: list[object] = [source.name, source.filter_subject, transforms]
    if source.external is not None:
        key.append(source.external.api)
    if source.consumer is not None:
        key.append({"consumer": source.consumer.name})
    return json.dumps(key, ensure_ascii=False, separators=(",", ":"))


def shown_origin(source: StreamSource) -> str:
    """How ``Nats-Stream-Source`` names an origin: by 8 letters for another account's API prefix, and for a consumer."""
    name = source.name
    if source.external is not None:
        name += f":{_letters(source.external.api)}"
    if source.consumer is not None:
        name += f":C={_letters(source.consumer.name)}"
    return name


def _letters(text: str) -> str:
    return "".join(_DIGITS[byte % 62] for byte in hashlib.sha256(text.encode()).digest()[:8])


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
    keys = [source_key(source) for source in config.sources]
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
        (mirror.external is None and not _is_name(mirror.name), "JSMirrorInvalidStreamName"),
        (bool(mirror.filter_subject and mirror.subject_transforms), "JSMirrorMultipleFiltersNotAllowed"),
    ):
        if is_wrong:
            raise api_error(name)
    _check_consumer(mirror, "JSMirrorDurableConsumerCfgInvalid")
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
    _check_consumer(source, "JSSourceDurableConsumerCfgInvalid")
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


def _check_consumer(source: StreamSource, refusal: str) -> None:
    consumer = source.consumer
    if consumer is None:
        return
    is_complete = _is_name(consumer.name) and is_valid_literal(consumer.deliver_subject)
    if not is_complete or source.opt_start_seq or source.opt_start_time or source.filter_subject:
        raise api_error(refusal)


def _is_name(name: str) -> bool:
    return bool(name) and not any(character in " \t\r\n\f.*>\\/" for character in name)


def _unsupported(feature: str) -> Exception:
    return api_error("JSStreamInvalidConfigF", err=f"{feature} is not supported by this version of jetstore")


def check_against(config: StreamConfig, existing: Mapping[str, StreamConfig]) -> None:
    """What is wrong with a mirror or sources beside the streams that exist: cycles and sizes."""
    if config.mirror is None and not config.sources:
        return
    own = [source for source in origins_of(config) if source.external is None]
    _check_external(config, [existing[source.name] for source in own if source.name in existing])
    seen: set[str] = set()
    waiting = [source.name for source in own]
    while waiting:
        name = waiting.pop()
        if name == config.name:
            raise api_error("JSStreamInvalidConfigF", err="detected cycle")
        if name not in seen and name in existing:
            seen.add(name)
            waiting += [source.name for source in origins_of(existing[name]) if source.external is None]
    for source in own:
        origin = existing.get(source.name)
        if origin is None:
            continue
        if config.max_msg_size > 0 and (origin.max_msg_size <= 0 or origin.max_msg_size > config.max_msg_size):
            is_mirror = config.mirror is not None
            raise api_error("JSMirrorMaxMessageSizeTooBigErr" if is_mirror else "JSSourceMaxMessageSizeTooBigErr")


def _check_external(config: StreamConfig, origins: Sequence[StreamConfig]) -> None:
    """What is wrong with the prefixes of origins elsewhere, beside the subjects of those that are here."""
    external = [source.external for source in origins_of(config) if source.external is not None]
    for prefix in [each.deliver for each in external if each.deliver]:
        if not is_valid_literal(prefix):
            raise api_error("JSStreamInvalidExternalDeliverySubjErrF", prefix=prefix)
        for subject in [subject for origin in origins for subject in origin.subjects]:
            if collide(subject, f"{prefix}.{subject}"):
                raise api_error("JSStreamExternalDelPrefixOverlapsErrF", prefix=prefix, subject=subject)
    for prefix in [each.api for each in external if each.api]:
        if not is_valid_literal(prefix):
            text = f'stream external api prefix "{prefix}" must be a valid subject without wildcards'
            raise api_error("JSStreamInvalidConfigF", err=text)
        if collide(prefix, API_PREFIX):
            raise api_error("JSStreamExternalApiOverlapErrF", prefix=prefix, subject=API_PREFIX)


def follow_origin(config: StreamConfig, existing: Mapping[str, StreamConfig]) -> StreamConfig:
    """A mirror lets itself be read directly where its origin does."""
    mirror = config.mirror
    origin = existing.get(mirror.name) if mirror is not None and mirror.external is None else None
    if origin is None or config.mirror_direct is origin.allow_direct:
        return config
    return config.model_copy(update={"mirror_direct": origin.allow_direct})
