"""/routez: the other nodes that this one has a link to, one entry each."""

from __future__ import annotations

from typing import Any

from jetstore.model.times import format_duration, format_time
from server.monitor.ports import MonitorSource
from server.monitor.query import uptime_text

JsonDict = dict[str, Any]  # Any: a JSON value


def routez(source: MonitorSource) -> JsonDict:
    """The whole page; without a cluster there is nobody to show."""
    now_ns = source.wall_ns()
    shown: JsonDict = {
        "server_id": source.facts.server_id,
        "server_name": source.facts.server_name,
        "now": format_time(now_ns),
    }
    counters = source.cluster() if source.cluster is not None else None
    routes: list[JsonDict] = []
    for number, peer in enumerate(counters.peers if counters is not None else (), start=1):
        if not peer.is_up:
            continue
        assert counters is not None
        up_ns = int((counters.now_s - peer.up_since_s) * 1e9)
        routes.append(
            {
                "rid": number,
                "remote_id": peer.node_id,
                "remote_name": peer.name,
                "did_solicit": peer.did_solicit,
                "is_configured": True,
                "ip": peer.ip,
                "port": peer.port,
                "start": format_time(now_ns - up_ns),
                "last_activity": format_time(now_ns),
                "rtt": format_duration(int(peer.rtt_s * 1e9)),
                "uptime": uptime_text(up_ns),
                "idle": uptime_text(0),
                "pending_size": peer.pending_bytes,
                "in_msgs": peer.messages_in,
                "out_msgs": peer.messages_out,
                "in_bytes": peer.in_bytes,
                "out_bytes": peer.out_bytes,
                "subscriptions": 0,
            }
        )
    return {**shown, "num_routes": len(routes), "routes": routes}


def leafz(source: MonitorSource) -> JsonDict:
    """There are no leaf nodes."""
    now = format_time(source.wall_ns())
    return {"server_id": source.facts.server_id, "now": now, "leafnodes": 0, "leafs": []}


def gatewayz(source: MonitorSource) -> JsonDict:
    """There are no gateways."""
    now = format_time(source.wall_ns())
    return {"server_id": source.facts.server_id, "now": now, "outbound_gateways": {}, "inbound_gateways": {}}
