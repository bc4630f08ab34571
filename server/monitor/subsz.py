"""/subsz: how many subscriptions there are, and which."""

from __future__ import annotations

from typing import Any

from jetstore.model.subjects import is_subset
from jetstore.model.times import format_time
from server.monitor.accountz import account_named, sublist_stats
from server.monitor.ports import MonitorSource, SubscriptionView
from server.monitor.query import BadParameter, Query, clamp_page

JsonDict = dict[str, Any]  # Any: a JSON value


def subsz(source: MonitorSource, query: Query) -> JsonDict:
    """Counters, of one account with ``acc``; with ``subs`` a page of the clients' subscriptions.

    With ``test`` only of those that a message on this subject reaches.
    """
    with_list = query.flag("subs")
    offset, limit = clamp_page(query.integer("offset"), query.integer("limit"))
    test, name = query.text("test"), query.text("acc")
    if test and any(token in ("", "*", ">") for token in test.split(".")):
        raise BadParameter(f"invalid test subject, must be valid publish subject: {test}")
    account = account_named(source, name)
    accounts = source.accounts if not name else () if account is None else (account,)
    shown: JsonDict = {
        "server_id": source.facts.server_id,
        "now": format_time(source.wall_ns()),
        **sublist_stats([each.sublist for each in accounts]),
        "total": 0,
        "offset": offset,
        "limit": limit,
    }
    if not with_list:
        return shown
    found: list[tuple[int, str, SubscriptionView]] = []
    for cid, connection in sorted(source.clients.connections.items()):
        if name and connection.account.name != name:
            continue
        found += [
            (cid, connection.account.name, subscription)
            for subscription in connection.subscriptions.values()
            if not test or is_subset(test, subscription.subject.decode("utf-8", "replace"))
        ]
    shown["total"] = len(found)
    page = found[offset : offset + limit]
    if page:
        shown["subscriptions_list"] = [
            {"account": where, "account_tag": where, **subscription_detail(subscription, cid)}
            for cid, where, subscription in page
        ]
    return shown


def subscription_detail(subscription: SubscriptionView, cid: int) -> JsonDict:
    """One subscription of a client."""
    shown: JsonDict = {"subject": subscription.subject.decode("utf-8", "replace")}
    if subscription.queue:
        shown["qgroup"] = subscription.queue.decode("utf-8", "replace")
    shown |= {"sid": subscription.sid.decode("utf-8", "replace"), "msgs": subscription.delivered}
    if subscription.max_messages:
        shown["max"] = subscription.max_messages
    return {**shown, "cid": cid}
