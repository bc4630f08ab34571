"""/jsz: JetStream's usage, and by account, stream and consumer where asked for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from jetstore.errors import ApiError, Corruption
from jetstore.model.infos import (
    api_stats_json,
    cluster_info_json,
    consumer_info_json,
    source_info_json,
    stream_state_json,
)
from jetstore.model.requests import StreamInfoRequest
from jetstore.model.times import format_time
from server.monitor.ports import JetStreamView, MonitorSource
from server.monitor.query import Query, clamp_page
from server.monitor.varz import jetstream_config_json, jetstream_stats_json

JsonDict = dict[str, Any]  # Any: a JSON value
UNLIMITED: Final = 2**64 - 1
_YIELD_EVERY: Final = 64
NOT_SHOWN: Final = (ApiError, Corruption)
"""Why a stream is left out of a page: it was deleted meanwhile, or it is damaged (/healthz names it)."""


async def _consumer_details(jetstream: JetStreamView, stream: str, now_ns: int, *, config: bool) -> list[JsonDict]:
    details = []
    for i, name in enumerate(jetstream.consumer_names(stream)):
        shown = consumer_info_json(await jetstream.consumer_info(stream, name), now_ns)
        if not config:
            del shown["config"]
        details.append(shown)
        if i % _YIELD_EVERY == _YIELD_EVERY - 1:
            await asyncio.sleep(0)
    return details


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an account's details are to show."""

    streams: bool = False
    consumers: bool = False
    config: bool = False
    raft: bool = False
    led_only: bool = False
    """Only streams that this server leads."""
    only_stream: str = ""


def _leader_of(source: MonitorSource, stream: str) -> str:
    return source.leader_of(stream) if source.leader_of is not None else source.facts.server_name


async def _stream_detail(source: MonitorSource, name: str, wanted: Wanted) -> JsonDict:
    assert source.jetstream is not None
    now_ns = source.wall_ns()
    info = await source.jetstream.stream_info(name, StreamInfoRequest())
    shown: JsonDict = {
        "name": name,
        "created": format_time(info.created_ns),
        "cluster": {"leader": _leader_of(source, name)},
    }
    if info.cluster is not None:
        shown["cluster"] = cluster_info_json(info.cluster)
    if wanted.config:
        shown["config"] = info.config.to_json()
    shown["state"] = stream_state_json(info.state)
    if info.mirror is not None:
        shown["mirror"] = source_info_json(info.mirror)
    if info.sources:
        shown["sources"] = [source_info_json(each) for each in info.sources]
    if wanted.consumers:
        details = await _consumer_details(source.jetstream, name, now_ns, config=wanted.config)
        if details:
            shown["consumer_detail"] = details
    if wanted.raft and info.cluster is not None:
        shown["stream_raft_group"] = name
        names = source.jetstream.consumer_names(name)  # they live in their stream's group
        if names:
            shown["consumer_raft_groups"] = [{"name": consumer, "raft_group": name} for consumer in names]
    return shown


async def jetstream_detail(source: MonitorSource, wanted: Wanted) -> JsonDict:
    """The account that has JetStream, which there is."""
    assert source.jetstream is not None
    info, api = source.jetstream.account_info(), source.api_stats()
    limits = info.limits
    shown: JsonDict = {
        "name": source.facts.account,
        "id": source.facts.account,
        "memory": info.memory,
        "storage": info.storage,
        "reserved_memory": UNLIMITED if limits.max_memory < 0 else limits.max_memory,
        "reserved_storage": UNLIMITED if limits.max_storage < 0 else limits.max_storage,
        "accounts": 0,
        "ha_assets": 0,
        "api": {**api_stats_json(api), "level": 0},
    }
    if not wanted.streams:
        return shown
    details = []
    for i, stream in enumerate(source.jetstream.stream_configs()):
        if wanted.only_stream and stream.name != wanted.only_stream:
            continue
        if wanted.led_only and _leader_of(source, stream.name) != source.facts.server_name:
            continue
        try:
            details.append(await _stream_detail(source, stream.name, wanted))
        except NOT_SHOWN:
            pass
        if i % _YIELD_EVERY == _YIELD_EVERY - 1:
            await asyncio.sleep(0)
    if details:
        shown["stream_detail"] = details
    return shown


async def _totals(jetstream: JetStreamView) -> tuple[int, int]:
    """Messages and bytes of all streams."""
    messages = size_bytes = 0
    for i, stream in enumerate(jetstream.stream_configs()):
        try:
            state = (await jetstream.stream_info(stream.name, StreamInfoRequest())).state
        except NOT_SHOWN:
            continue
        messages += state.messages
        size_bytes += state.bytes
        if i % _YIELD_EVERY == _YIELD_EVERY - 1:
            await asyncio.sleep(0)
    return messages, size_bytes


async def jsz(source: MonitorSource, query: Query) -> JsonDict:
    """The page that the parameters ask for. ``consumers`` implies ``streams`` implies ``accounts``."""
    consumers = query.flag("consumers") or query.flag("direct-consumers")
    streams = query.flag("streams") or consumers
    accounts = query.flag("accounts") or streams
    config = query.flag("config")
    raft, led_only = query.flag("raft"), query.flag("stream-leader-only")
    query.flag("leader-only")  # of a cluster's leader is more to be learnt, yet everybody answers
    offset, limit = clamp_page(query.integer("offset"), query.integer("limit"))
    account = query.text("acc")
    top: JsonDict = {"server_id": source.facts.server_id, "now": format_time(source.wall_ns())}
    if source.jetstream is None or source.jetstream_facts is None:
        stats = dict.fromkeys(("memory", "storage", "reserved_memory", "reserved_storage", "accounts", "ha_assets"), 0)
        return {
            **stats,
            "api": {"level": 0, "total": 0, "errors": 0},
            **top,
            "disabled": True,
            "config": {"max_memory": 0, "max_storage": 0},
            "streams": 0,
            "consumers": 0,
            "messages": 0,
            "bytes": 0,
            "total": 0,
        }
    info, _ = source.jetstream_totals()
    with_jetstream = source.of_jetstream()
    totals = [await _totals(each.jetstream) for each in with_jetstream if each.jetstream is not None]
    messages, size_bytes = (sum(column) for column in zip(*totals, strict=True))
    shown: JsonDict = {
        **jetstream_stats_json(source),
        **top,
        "config": jetstream_config_json(source.jetstream_facts),
        "limits": {},
        "streams": info.streams,
        "consumers": info.consumers,
        "messages": messages,
        "bytes": size_bytes,
    }
    meta = source.meta_cluster()
    if meta is not None or raft:
        led = [
            (each.jetstream, config.name)
            for each in with_jetstream
            if each.jetstream is not None
            for config in each.jetstream.stream_configs()
            if _leader_of(each, config.name) == source.facts.server_name
        ]
        shown["streams_leader"] = len(led)
        shown["consumers_leader"] = sum(len(jetstream.consumer_names(name)) for jetstream, name in led)
    if meta is not None:
        shown["meta_cluster"] = meta
    if account:
        wanted = [each for each in with_jetstream if each.facts.account == account][: max(limit, 0)]
    else:
        wanted = list(with_jetstream[offset : offset + limit]) if accounts and limit > 0 else []
    if wanted:
        about = Wanted(streams, consumers, config, raft, led_only, query.text("stream"))
        shown["account_details"] = [await jetstream_detail(each, about) for each in wanted]
    shown["total"] = len(with_jetstream)
    return shown
