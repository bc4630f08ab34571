"""/subsz: how many subscriptions there are, and which."""

from __future__ import annotations

from typing import Any

from jetstore.model.subjects import is_subset
from jetstore.model.times import format_time
from server.monitor.ports import MonitorSource
from server.monitor.query import Query, clamp_page

JsonDict = dict[str, Any]  # Any: a JSON value


def subsz(source: MonitorSource, query: Query) -> JsonDict:
    """Counts; with ``subs`` a page of the clients' subscriptions, with ``test`` only those a subject reaches."""
    with_list = query.flag("subs")
    offset, limit = clamp_page(query.integer("offset"), query.integer("limit"))
    test = query.text("test")
    shown: JsonDict = {
        "server_id": source.facts.server_id,
        "now": format_time(source.wall_ns()),
        "num_subscriptions": len(source.sublist),
        "num_cache": source.sublist.cached(),
        "total": 0,
        "offset": offset,
        "limit": limit,
    }
    if not with_list:
        return shown
    found: list[JsonDict] = []
    for cid, connection in sorted(source.clients.connections.items()):
        for subscription in connection.subscriptions.values():
            subject = subscription.subject.decode("utf-8", "replace")
            if test and not is_subset(test, subject):
                continue
            detail: JsonDict = {"account": source.facts.account, "subject": subject}
            if subscription.queue:
                detail["qgroup"] = subscription.queue.decode("utf-8", "replace")
            found.append({**detail, "sid": subscription.sid.decode("utf-8", "replace"), "cid": cid})
    shown["total"] = len(found)
    shown["subscriptions_list"] = found[offset : offset + limit]
    return shown
