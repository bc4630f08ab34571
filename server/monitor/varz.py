"""/varz: identity, limits, counters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jetstore.model.infos import api_stats_json
from jetstore.model.times import format_time
from server.monitor.ports import JetStreamFacts, MonitorSource, ServerFacts
from server.monitor.process import Usage
from server.monitor.query import uptime_text

JsonDict = dict[str, Any]  # Any: a JSON value
_LINK_KINDS = ("clients", "routes", "gateways", "leafs")


def jetstream_config_json(facts: JetStreamFacts) -> JsonDict:
    """The ``config`` object of JetStream. Every acknowledgement is synced, so that is what it says."""
    shown: JsonDict = {
        "max_memory": facts.max_memory_bytes,
        "max_storage": facts.max_storage_bytes,
        "store_dir": facts.store_dir,
        "sync_interval": 0,
        "sync_always": True,
    }
    if facts.domain:
        shown["domain"] = facts.domain
    shown["strict"] = facts.is_strict
    return shown


def jetstream_stats_json(source: MonitorSource) -> JsonDict:
    """The ``stats`` object of JetStream."""
    info, api = source.jetstream_totals()
    return {
        "memory": info.memory,
        "storage": info.storage,
        "reserved_memory": info.reserved_memory,
        "reserved_storage": info.reserved_storage,
        "accounts": len(source.of_jetstream()),
        "ha_assets": 0,
        "api": api_stats_json(api),
    }


def _jetstream(source: MonitorSource) -> JsonDict:
    if source.jetstream is None or source.jetstream_facts is None:
        return {}
    shown: JsonDict = {
        "config": jetstream_config_json(source.jetstream_facts),
        "stats": jetstream_stats_json(source),
    }
    meta = source.meta_cluster()
    if meta is not None:
        shown["meta"] = meta
    return {**shown, "limits": {}}


def _identity(source: MonitorSource) -> JsonDict:
    facts = source.facts
    shown: JsonDict = {
        "server_id": facts.server_id,
        "server_name": facts.server_name,
        "version": facts.version,
        "jetstore": facts.jetstore,
        "proto": 1,
        "go": facts.go,
        "host": facts.host,
        "port": facts.port,
    }
    for name in ("auth_required", "tls_required", "tls_verify"):
        if getattr(facts, name):
            shown[name] = True
    return shown


def labels(facts: ServerFacts) -> JsonDict:
    """Tags and metadata of the server, where it has any."""
    shown: JsonDict = {"tags": list(facts.tags)} if facts.tags else {}
    return shown | ({"metadata": dict(facts.metadata)} if facts.metadata else {})


def _websocket(facts: ServerFacts) -> JsonDict:
    if not facts.websocket_port:
        return {}
    shown: JsonDict = {"host": facts.websocket_host, "port": facts.websocket_port}
    return shown | {"no_tls": True} if facts.websocket_no_tls else shown


def _cluster(source: MonitorSource) -> JsonDict:
    facts = source.cluster_facts
    if facts is None:
        return {"name": source.facts.cluster} if source.facts.cluster else {}
    return {
        "name": facts.name,
        "addr": facts.host,
        "cluster_port": facts.port,
        "auth_timeout": facts.auth_timeout_ns / 1_000_000_000,
        "urls": list(facts.urls),
    }


def varz(source: MonitorSource, usage: Usage, http_requests: Mapping[str, int]) -> JsonDict:
    """The whole page."""
    facts, now_ns, traffic = source.facts, source.wall_ns(), source.clients.traffic()
    peers = source.cluster().peers if source.cluster is not None else ()
    return {
        **_identity(source),
        "max_connections": facts.max_connections,
        "ping_interval": facts.ping_interval_ns,
        "ping_max": facts.ping_max,
        "http_host": facts.http_host,
        "http_port": facts.http_port,
        "http_base_path": facts.http_base_path,
        "https_port": facts.https_port,
        "auth_timeout": facts.auth_timeout_ns / 1_000_000_000,
        "max_control_line": facts.max_control_line,
        "max_payload": facts.max_payload,
        "max_pending": facts.max_pending,
        "cluster": _cluster(source),
        "gateway": {},
        "leaf": {},
        "mqtt": {},
        "websocket": _websocket(facts),
        "jetstream": _jetstream(source),
        "tls_timeout": 2,
        "write_deadline": facts.write_deadline_ns,
        "start": format_time(facts.start_ns),
        "now": format_time(now_ns),
        "uptime": uptime_text(now_ns - facts.start_ns),
        "mem": usage.resident_bytes,
        "cores": os.cpu_count() or 1,
        "gomaxprocs": 1,
        "cpu": usage.cpu_percent,
        "connections": len(source.clients.connections),
        "total_connections": traffic.total_connections,
        "routes": sum(peer.is_up for peer in peers),
        "remotes": sum(peer.is_up for peer in peers),
        "leafnodes": 0,
        "in_msgs": traffic.in_msgs,
        "in_bytes": traffic.in_bytes,
        "in_client_msgs": traffic.in_msgs,
        "in_client_bytes": traffic.in_bytes,
        "out_msgs": traffic.out_msgs,
        "out_bytes": traffic.out_bytes,
        "out_client_msgs": traffic.out_msgs,
        "out_client_bytes": traffic.out_bytes,
        "slow_consumers": traffic.slow_consumers,
        "stale_connections": traffic.stale_connections,
        "stalled_clients": traffic.stalled_clients,
        "subscriptions": source.subscriptions(),
        "http_req_stats": dict(sorted(http_requests.items())),
        "config_load_time": format_time(facts.config_loaded_ns or facts.start_ns),
        "config_digest": facts.config_digest,
        **labels(facts),
        "system_account": facts.system_account,
        "slow_consumer_stats": dict.fromkeys(_LINK_KINDS, 0) | {"clients": traffic.slow_consumers},
        "stale_connection_stats": dict.fromkeys(_LINK_KINDS, 0) | {"clients": traffic.stale_connections},
        "disk_io_wait_stats": dict.fromkeys(("waiters", "waits", "wait_time", "max_wait_time"), 0),
    }
