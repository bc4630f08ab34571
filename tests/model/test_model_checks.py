"""What the comparison with nats-server (tests/server/jsapi) cannot reach: server and account limits, state, shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jetstore.errors import ApiError
from jetstore.model.api_errors import api_error, error_json, error_table
from jetstore.model.catalogue import Catalogue
from jetstore.model.consumer import AckPolicy, ConsumerAction, ConsumerConfig, DeliverPolicy
from jetstore.model.consumer_checks import admit_consumer, check_reset, checked_consumer
from jetstore.model.infos import (
    AccountLimits,
    ConsumerInfo,
    PauseState,
    SequenceInfo,
    StreamInfo,
    StreamState,
    consumer_info_json,
    pause_state_json,
    stream_info_json,
    stream_state_json,
)
from jetstore.model.server_limits import ServerLimits
from jetstore.model.stream import (
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamConsumerLimits,
    StreamSource,
)
from jetstore.model.stream_checks import admit_create, admit_update, checked_stream

SECOND = 1_000_000_000


def stream(name: str = "A", **fields: object) -> StreamConfig:
    return checked_stream(StreamConfig(name=name, **fields))


def among(*streams: StreamConfig) -> Catalogue:
    return Catalogue.of(streams)


def refused(err_code: int, text: str = "") -> pytest.RaisesExc[ApiError]:
    return pytest.RaisesExc(ApiError, check=lambda error: error.err_code == err_code and text in error.description)


def test_error_table_is_whole() -> None:
    table = error_table()
    codes = [entry.err_code for entry in table.values()]
    assert len(codes) == len(set(codes)) == 226
    assert min(codes) == 10002
    assert max(codes) == 10227
    error = api_error("JSSequenceNotFoundErrF", seq=5)
    assert error_json(error) == {"code": 400, "err_code": 10043, "description": "sequence 5 not found"}
    with pytest.raises(KeyError):
        api_error("JSNoSuchError")


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"placement": {"tags": ["a"]}}, "placement tags"),
    ],
)
def test_features_of_later_versions_are_named(fields: dict[str, Any], feature: str) -> None:
    with refused(10052, f"{feature} is not supported by this version of jetstore"):
        stream(**fields)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"storage": "memory", "num_replicas": 3, "allow_atomic": True}, "is only supported on file storage"),
        ({"num_replicas": 3, "allow_atomic": True}, "is not supported on replicated streams"),
        ({"allow_atomic": True}, "is not supported with atomic batch publish"),
    ],
)
def test_what_async_persist_mode_does_not_go_with(fields: dict[str, Any], text: str) -> None:
    with refused(10052, f"async persist mode {text}"):
        stream(persist_mode="async", **fields)


def test_async_persist_mode_is_kept_and_cannot_be_changed() -> None:
    kept = stream(persist_mode="async")
    assert kept.persist_mode == "async"
    assert kept.metadata["_nats.req.level"] == "2"
    with refused(10052, "stream configuration update can not change persist mode"):
        admit_update(kept, stream(), among(kept))


def test_an_origin_keeps_what_is_not_copied_yet() -> None:
    current, wanted = stream(), stream(retention=RetentionPolicy.INTEREST)
    assert admit_update(current, wanted, among(current, stream("B"))) == wanted
    mirror = stream("B", mirror=StreamSource(name="A"))
    with refused(10052, 'while stream "B" copies from it is not supported'):
        admit_update(current, wanted, among(current, mirror))
    assert admit_update(wanted, current, among(wanted, mirror)) == current


def test_server_limit_of_the_duplicate_window() -> None:
    server = ServerLimits(duplicate_window_ns=10 * SECOND)
    assert checked_stream(StreamConfig(name="A"), server=server).duplicate_window == 10 * SECOND
    with refused(10157):
        checked_stream(StreamConfig(name="A"), server=server, pedantic=True)
    with refused(10052, "duplicates window can not be larger then server limit of 10s"):
        checked_stream(StreamConfig(name="A", duplicate_window=11 * SECOND), server=server)


def test_sealing_forces_what_it_implies() -> None:
    config = StreamConfig(name="A", sealed=True, max_age=SECOND, allow_rollup_hdrs=True)
    sealed = checked_stream(config, is_create=False)
    assert (sealed.max_age, sealed.discard, sealed.deny_delete, sealed.deny_purge, sealed.allow_rollup_hdrs) == (
        0,
        DiscardPolicy.NEW,
        True,
        True,
        False,
    )


def test_checking_twice_changes_nothing() -> None:
    config = stream(max_age=SECOND, subject_delete_marker_ttl=SECOND, metadata={"a": "b", "_nats.ver": "x"})
    assert checked_stream(config) == config
    consumer = checked_consumer(ConsumerConfig(name="c", ack_policy=AckPolicy.EXPLICIT, backoff=(5,)), config)
    assert checked_consumer(consumer, config) == consumer


def test_create_against_what_exists() -> None:
    one = stream("A", subjects=("a.*",))
    assert admit_create(one, among())
    assert not admit_create(one, among(one))
    assert not admit_create(one, among(one.model_copy(update={"metadata": {"_nats.req.level": "9"}})))
    with refused(10058):
        admit_create(stream("A", subjects=("b",)), among(one))
    with refused(10065):
        admit_create(stream("B", subjects=("x", "a.b")), among(one))
    with refused(10027):
        admit_create(stream("B"), among(one), AccountLimits(max_streams=1))


def test_each_tier_bounds_the_streams_with_so_many_replicas() -> None:
    server = ServerLimits(replicas_max=3)
    tiers = {"R1": AccountLimits(max_storage=100), "R3": AccountLimits(max_streams=1, max_storage=1000, max_memory=0)}
    account = AccountLimits(0, 0, tiers=tiers)
    one, three = stream("A", max_bytes=60), stream("B", max_bytes=900, num_replicas=3)
    existing = among(one, three)
    assert admit_create(one, among(three), account, server)
    assert admit_create(three, among(one), account, server)
    with refused(10027):
        admit_create(stream("C", num_replicas=3), existing, account, server)
    with refused(10120):
        admit_create(stream("C", num_replicas=2), existing, account, server)
    with refused(10047):
        admit_create(stream("C", max_bytes=41), existing, account, server)
    with refused(10028):
        admit_create(stream("C", num_replicas=3, storage=StorageType.MEMORY), among(), account, server)
    assert admit_create(stream("C", max_bytes=40), existing, account, server)
    with refused(10027):
        admit_update(one, stream("A", num_replicas=3), among(three), account=account, server=server)
    with refused(10047):
        admit_update(three, stream("B", max_bytes=900), among(one), account=account, server=server)
    assert admit_update(three, stream("B", max_bytes=40), among(one), account=account, server=server)


def test_a_stream_without_bounds_needs_some_room() -> None:
    full = among(stream("A", max_bytes=100))
    with refused(10047):
        admit_create(stream("B"), full, AccountLimits(max_storage=100))
    assert admit_create(stream("B"), full, AccountLimits(max_storage=101))


def test_room_is_reserved_per_storage() -> None:
    server = ServerLimits(max_memory_bytes=100, max_storage_bytes=1000)
    big = stream("A", max_bytes=800)
    assert admit_create(big, among(), server=server)
    with refused(10047):
        admit_create(stream("B", max_bytes=300), among(big), server=server)
    assert admit_create(stream("B", max_bytes=90, storage=StorageType.MEMORY), among(big), server=server)
    with refused(10028):
        admit_create(stream("B", max_bytes=101, storage=StorageType.MEMORY), among(), server=server)
    with refused(10113):
        admit_create(stream("B"), among(), AccountLimits(max_bytes_required=True))
    with refused(10122):
        admit_create(stream("B", max_bytes=11), among(), AccountLimits(storage_max_stream_bytes=10))
    # An update counts its own reservation once.
    grown = stream("A", max_bytes=1000)
    assert admit_update(big, grown, among(big), server=server) == grown
    with refused(10047):
        admit_update(big, stream("A", max_bytes=1001), among(big), server=server)


def test_update_against_consumers() -> None:
    current = stream("A")
    tight = stream("A", consumer_limits=StreamConsumerLimits(max_ack_pending=10))
    consumers = [
        checked_consumer(ConsumerConfig(name=name, ack_policy=AckPolicy.EXPLICIT, max_ack_pending=pending), current)
        for name, pending in (("b", 11), ("a", 12), ("c", 10))
    ]
    with refused(10069, "change to limits violates consumers: a, b"):
        admit_update(current, tight, among(current), consumers=consumers)
    assert admit_update(current, tight, among(current), consumers=consumers[2:]) == tight


def test_consumer_limits_of_server_and_account() -> None:
    parent = stream()
    asked = ConsumerConfig(name="c", ack_policy=AckPolicy.EXPLICIT)
    server, account = ServerLimits(max_ack_pending=500, max_request_batch=50), AccountLimits(max_ack_pending=400)
    checked = checked_consumer(asked, parent, server=server, account=account)
    assert (checked.max_ack_pending, checked.max_batch) == (400, 50)
    with refused(10121, "400"):
        checked_consumer(asked.model_copy(update={"max_ack_pending": 401}), parent, account=account)
    with refused(10125, "server limit of 50"):
        checked_consumer(asked.model_copy(update={"max_batch": 51}), parent, server=server)
    with refused(10026):
        admit_consumer(checked, parent, {"x": checked}, account=AccountLimits(max_consumers=1))
    with refused(10074):
        checked_consumer(asked.model_copy(update={"num_replicas": 3}), parent)
    with refused(10012, "sourcing is not supported"):
        checked_consumer(ConsumerConfig(name="c", sourcing=True), parent)


def test_replicas_of_a_consumer_are_those_of_its_stream_or_fewer() -> None:
    server = ServerLimits(replicas_max=5)
    limits = stream().model_copy(update={"num_replicas": 3})
    interest = limits.model_copy(update={"retention": RetentionPolicy.INTEREST})
    for parent, replicas, code in ((limits, 5, 10126), (interest, 1, 10134), (interest, 5, 10126)):
        with refused(code):
            checked_consumer(ConsumerConfig(name="c", num_replicas=replicas), parent, server=server)
    for parent, replicas in ((limits, 1), (limits, 3), (interest, 3), (interest, 0)):
        checked_consumer(ConsumerConfig(name="c", num_replicas=replicas), parent, server=server)


def test_deliver_subject_moves_only_when_nobody_listens() -> None:
    parent = stream()
    current = checked_consumer(ConsumerConfig(name="p", durable_name="p", deliver_subject="d1"), parent)
    moved = checked_consumer(ConsumerConfig(name="p", durable_name="p", deliver_subject="d2"), parent)
    assert admit_consumer(moved, parent, {"p": current}) == moved
    with refused(10013):
        admit_consumer(moved, parent, {"p": current}, is_deliver_subject_in_use=True)
    assert admit_consumer(current, parent, {"p": current}, is_deliver_subject_in_use=True) is None


def test_recreating_keeps_the_pause() -> None:
    parent = stream()
    paused = checked_consumer(ConsumerConfig(name="p", durable_name="p", pause_until=5 * SECOND), parent)
    plain = checked_consumer(ConsumerConfig(name="p", durable_name="p"), parent)
    assert admit_consumer(plain, parent, {"p": paused}) is None
    described = plain.model_copy(update={"description": "x"})
    admitted = admit_consumer(described, parent, {"p": paused})
    assert admitted is not None
    assert (admitted.pause_until, admitted.metadata["_nats.req.level"]) == (5 * SECOND, "1")
    assert admit_consumer(paused, parent, {"p": paused}, ConsumerAction.CREATE) is None


@pytest.mark.parametrize(
    ("policy", "seq", "allowed"),
    [
        (DeliverPolicy.NEW, 0, True),
        (DeliverPolicy.ALL, 5, True),
        (DeliverPolicy.NEW, 5, False),
        (DeliverPolicy.LAST, 5, False),
        (DeliverPolicy.BY_START_SEQUENCE, 10, True),
        (DeliverPolicy.BY_START_SEQUENCE, 9, False),
        (DeliverPolicy.BY_START_TIME, 7, True),
        (DeliverPolicy.BY_START_TIME, 6, False),
    ],
)
def test_reset(policy: DeliverPolicy, seq: int, allowed: bool) -> None:
    config = ConsumerConfig(name="c", deliver_policy=policy, opt_start_seq=10)
    if allowed:
        check_reset(config, seq, 7)
    else:
        below = {DeliverPolicy.BY_START_SEQUENCE: "below start seq", DeliverPolicy.BY_START_TIME: "below start time"}
        with refused(10204, f"invalid reset: {below.get(policy, 'not allowed')}"):
            check_reset(config, seq, 7)


def test_stream_info_shape() -> None:
    state = StreamState(
        messages=2, bytes=9, first_seq=1, last_seq=4, num_deleted=2, deleted=[2, 3], subjects={"a": 2}, num_subjects=1
    )
    shown = stream_info_json(StreamInfo(stream(), 5, state), 6, dynamic_metadata=True, cluster_leader="n")
    assert list(shown) == ["config", "created", "state", "cluster", "ts"]
    assert list(shown["state"]) == [
        *("messages", "bytes", "first_seq", "first_ts", "last_seq", "last_ts", "num_subjects", "subjects"),
        *("num_deleted", "deleted", "consumer_count"),
    ]
    assert list(shown["config"])[-1] == "metadata"
    assert sorted(shown["config"]["metadata"]) == ["_nats.level", "_nats.req.level", "_nats.ver"]
    assert stream_state_json(StreamState(lost_messages=[4], lost_bytes=7))["lost"] == {"msgs": [4], "bytes": 7}
    assert "cluster" not in stream_info_json(StreamInfo(stream(), 5, state), 6)


def test_consumer_info_shape() -> None:
    config = checked_consumer(ConsumerConfig(name="c", pause_until=SECOND), stream())
    info = ConsumerInfo("A", "c", 5, config, SequenceInfo(1, 2, 3), paused=True, pause_remaining_ns=4, push_bound=True)
    shown = consumer_info_json(info, 6, dynamic_metadata=True)
    assert list(shown) == [
        *("stream_name", "name", "created", "config", "delivered", "ack_floor", "num_ack_pending"),
        *("num_redelivered", "num_waiting", "num_pending", "push_bound", "paused", "pause_remaining", "ts"),
    ]
    assert list(shown["config"])[-2:] == ["metadata", "pause_until"]
    assert list(shown["delivered"]) == ["consumer_seq", "stream_seq", "last_active"]
    assert list(shown["ack_floor"]) == ["consumer_seq", "stream_seq"]
    plain = consumer_info_json(replace(info, paused=False, pause_remaining_ns=0, push_bound=False), 6)
    assert not {"paused", "pause_remaining", "push_bound"} & set(plain)


def test_small_answers() -> None:
    assert pause_state_json(PauseState(False)) == {"paused": False, "pause_until": "0001-01-01T00:00:00Z"}
