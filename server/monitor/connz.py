"""/connz: client connections, sorted and paged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from jetstore.model.subjects import collide
from jetstore.model.times import format_duration, format_time
from server.config.authorization import GLOBAL_ACCOUNT
from server.monitor.ports import ConnectionView, MonitorSource, OpenConnection
from server.monitor.query import BadParameter, Query, clamp_page, uptime_text
from server.monitor.subsz import subscription_detail

JsonDict = dict[str, Any]  # Any: a JSON value
SortKey = Callable[[ConnectionView], int | str]

SORTS: Final[Mapping[str, SortKey]] = {
    "start": lambda view: view.start_ns,
    "subs": lambda view: view.subscriptions,
    "pending": lambda view: view.pending_bytes,
    "msgs_to": lambda view: view.out_msgs,
    "msgs_from": lambda view: view.in_msgs,
    "bytes_to": lambda view: view.out_bytes,
    "bytes_from": lambda view: view.in_bytes,
    "last": lambda view: view.last_activity_ns,
    "idle": lambda view: view.idle_ns,
    "uptime": lambda view: view.uptime_ns,
    "rtt": lambda view: view.rtt_ns,
    "stop": lambda view: view.stop_ns,
    "reason": lambda view: view.reason,
}
"""All descending; ``cid`` (the default) is ascending."""

_STATES: Final = {"": "open", "open": "open", "closed": "closed", "any": "all", "all": "all"}


def _views(source: MonitorSource, state: str) -> list[ConnectionView]:
    views: list[ConnectionView] = []
    if state in ("open", "all"):
        views.extend(connection.stats() for connection in source.clients.connections.values())
    if state in ("closed", "all"):
        views.extend(source.clients.closed)
    return views


def _subscriptions(connection: OpenConnection | None, cid: int, *, detail: bool) -> JsonDict:
    if connection is None or not connection.subscriptions:
        return {}
    subscriptions = sorted(connection.subscriptions.values(), key=lambda subscription: subscription.subject)
    if not detail:
        return {
            "subscriptions_list": [subscription.subject.decode("utf-8", "replace") for subscription in subscriptions]
        }
    return {"subscriptions_list_detail": [subscription_detail(subscription, cid) for subscription in subscriptions]}


def _shown(view: ConnectionView, source: MonitorSource, *, auth: bool, subs: str) -> JsonDict:
    shown: JsonDict = {
        "cid": view.cid,
        "kind": "Client",
        "type": view.client_type,
        "ip": view.ip,
        "port": view.port,
        "start": format_time(view.start_ns),
        "last_activity": format_time(view.last_activity_ns),
    }
    if view.stop_ns:
        shown["stop"] = format_time(view.stop_ns)
        shown["reason"] = view.reason
    if view.rtt_ns or view.stop_ns:
        shown["rtt"] = format_duration(view.rtt_ns)
    shown.update(
        uptime=uptime_text(view.uptime_ns),
        idle=uptime_text(view.idle_ns),
        pending_bytes=view.pending_bytes,
        in_msgs=view.in_msgs,
        out_msgs=view.out_msgs,
        in_bytes=view.in_bytes,
        out_bytes=view.out_bytes,
    )
    if view.stalls:
        shown["stalls"] = view.stalls
    shown["subscriptions"] = view.subscriptions
    optional = {"name": view.name, "lang": view.lang, "version": view.version}
    if auth:
        optional["authorized_user"] = view.authorized_user
        optional["account"] = "" if view.account == GLOBAL_ACCOUNT else view.account
    shown.update((key, value) for key, value in optional.items() if value)
    if subs:
        shown.update(_subscriptions(source.clients.connections.get(view.cid), view.cid, detail=subs == "detail"))
    if auth and view.account != GLOBAL_ACCOUNT:
        shown["name_tag"] = view.account
    return shown


def _is_interested(source: MonitorSource, cid: int, subject: str) -> bool:
    """Whether an open connection subscribes to what overlaps a filter."""
    connection = source.clients.connections.get(cid)
    subscriptions = connection.subscriptions.values() if connection is not None else ()
    names = [subscription.subject.decode("utf-8", "replace") for subscription in subscriptions]
    return any(collide(name, subject) for name in names)


def connz(source: MonitorSource, query: Query, subject: str = "") -> JsonDict:
    """The page that the parameters ask for. ``subject``: only of those that subscribe to it or to some of it."""
    sort = query.text("sort") or "cid"
    if sort != "cid" and sort not in SORTS:
        raise BadParameter(f"invalid sorting option: {sort}")
    auth = query.flag("auth")
    subs = "detail" if query.text("subs").lower() == "detail" else ("list" if query.flag("subs") else "")
    offset, limit = clamp_page(query.integer("offset"), query.integer("limit"))
    cid = query.unsigned("cid")
    state = _STATES.get(query.text("state").lower())
    if state is None:
        raise BadParameter(f"Error decoding state for {query.text('state')}")
    if sort in ("stop", "reason") and state != "closed":
        raise BadParameter(f"sort by {sort} only valid on closed connections")
    user, account = query.text("user"), query.text("acc")
    if subject and not account:
        raise BadParameter("filter by subject only valid with account filtering")
    views = _views(source, state)
    if account:
        views = [view for view in views if view.account == account]
    total = len(views)  # the other filters leave it as it is
    if cid:
        found = [view for view in _views(source, "all") if view.cid == cid]
        views, offset, limit = [view for view in found if not account or view.account == account], 0, 1
    if user:
        views = [view for view in views if view.authorized_user == user]
    if subject:
        views = [view for view in views if _is_interested(source, view.cid, subject)]
    if query.text("mqtt_client"):
        views = []  # there are no such clients
    views.sort(key=lambda view: view.cid)
    if sort in SORTS:
        views.sort(key=SORTS[sort], reverse=True)
    page = views[offset : offset + limit]
    return {
        "server_id": source.facts.server_id,
        "now": format_time(source.wall_ns()),
        "num_connections": len(page),
        "total": total,
        "offset": offset,
        "limit": limit,
        "connections": [_shown(view, source, auth=auth, subs=subs) for view in page],
    }
