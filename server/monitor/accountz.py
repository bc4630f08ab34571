"""/accountz and /accstatz: the accounts, what they share, and their traffic."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from jetstore.model.times import format_time
from jetstore.types import Nanos
from server.config.accounts import Export, Import, export_among
from server.config.latency import BY_HEADERS, LatencyOptions
from server.monitor.ports import AccountView, MonitorSource, SublistView
from server.monitor.query import BadParameter, Query

JsonDict = dict[str, Any]  # Any: a JSON value
_OWN_SERVICES: Final = (
    ("ACCOUNT.{}.CONNZ", "ACCOUNT.PING.CONNZ", False),
    ("ACCOUNT.{}.CONNZ", "SERVER.PING.CONNZ", False),
    ("ACCOUNT.{}.STATZ", "ACCOUNT.PING.STATZ", False),
    ("USER.{}.INFO", "USER.INFO", True),
)
"""What every account may ask the system account for: there, here, whether it tells who asks.

The system account itself asks for the last only.
"""
_SYSTEM_EXPORTS: Final = (
    Export("$SYS.REQ.ACCOUNT.*.CONNZ", is_service=True, is_single=False),
    Export("$SYS.REQ.ACCOUNT.*.STATZ", is_service=True, is_single=False),
    Export("$SYS.REQ.USER.*.INFO", is_service=True),
    Export("$JS.API.>", is_service=True),
)


def accountz(source: MonitorSource, query: Query) -> JsonDict:
    """The names of all accounts, or one of them with ``acc``."""
    shown: JsonDict = {
        "server_id": source.facts.server_id,
        "now": format_time(source.wall_ns()),
        "system_account": source.facts.system_account,
    }
    name = query.text("acc")
    if not name:
        return {**shown, "accounts": [account.name for account in source.accounts]}
    return {**shown, "account_detail": account_detail(source, name)}


def account_named(source: MonitorSource, name: str) -> AccountView | None:
    """The account of this name, if there is one."""
    return next((account for account in source.accounts if account.name == name), None)


def account_detail(source: MonitorSource, name: str) -> JsonDict:
    """Everything about one account. Raises BadParameter if there is none of this name."""
    account = account_named(source, name)
    if account is None:
        raise BadParameter(f"Account {name} does not exist")
    facts, options = source.facts, account.options
    shown: JsonDict = {"account_name": name, "update_time": format_time(facts.config_loaded_ns or facts.start_ns)}
    if account.is_system:
        shown["is_system"] = True
    has_jetstream = source.jetstream_of(name) is not None
    shown |= {
        "expired": False,
        "complete": options.is_complete,
        "jetstream_enabled": has_jetstream,
        "leafnode_connections": 0,
        "client_connections": account.connections,
        "subscriptions": len(account.sublist),
    }
    if options.mappings:
        shown["mappings"] = {each.source: _destinations(each.source, each.destinations) for each in options.mappings}
    exports = [_export(each) for each in options.exports]
    imports = [_import(each) | _measured(source, name, each) for each in options.imports]
    if account.is_system:
        exports += [_export(each) for each in _SYSTEM_EXPORTS]
    imports += [
        _service(facts.system_account, f"$SYS.REQ.{there.format(name)}", f"$SYS.REQ.{here}", shares=shares)
        for there, here, shares in _OWN_SERVICES[-1 if account.is_system else 0 :]
    ]
    if source.jetstream is not None and not account.is_system:
        imports.append(_service(facts.system_account, "$JS.API.>", "$JS.API.>", shares=True))
    if exports:
        shown["exports"] = exports
    return {**shown, "imports": imports, "name_tag": name, "sublist_stats": sublist_stats([account.sublist])}


def _destinations(source: str, destinations: tuple[tuple[str, int], ...]) -> list[JsonDict]:
    shown = [{"subject": subject, "weight": weight} for subject, weight in destinations]
    if sum(weight for _, weight in destinations) < 100 and all(subject != source for subject, _ in destinations):
        shown.append({"subject": source, "weight": 100})  # what is left stays where it is
    return shown


def _export(export: Export) -> JsonDict:
    shown: JsonDict = {"subject": export.subject, "type": "service" if export.is_service else "stream"}
    if export.activators is not None:
        shown["token_req"] = True
    if export.is_service:
        shown["response_type"] = "Singleton" if export.is_single else "Streamed"
    if export.latency is not None:
        shown["service_latency"] = _latency(export.latency)
    if export.accounts is not None:
        shown["approved_accounts"] = list(export.accounts)
    if export.activators is not None and export.activators.revocations:
        revoked = export.activators.revocations
        shown["revoked_activations"] = {key: format_time(Nanos(until_s * 10**9)) for key, until_s in revoked}
    return shown


def _latency(given: LatencyOptions) -> JsonDict:
    return {"sampling": given.sampling if given.sampling != BY_HEADERS else "headers", "results": given.subject}


def _measured(source: MonitorSource, importer: str, given: Import) -> JsonDict:
    """How what it imports is measured, if it is."""
    account = account_named(source, given.account)
    export = export_among(account.options.exports, importer, given) if account is not None else None
    return {"latency": _latency(export.latency)} if export is not None and export.latency is not None else {}


def _import(given: Import) -> JsonDict:
    local = given.local or given.subject
    if given.is_service:
        return _service(given.account, given.subject, local, shares=given.is_shared)
    shown: JsonDict = {"subject": given.subject, "account": given.account, "local_subject": local, "type": "stream"}
    return shown | {"invalid": False, "share": False, "tracking": False}


def _service(account: str, subject: str, local: str, *, shares: bool = False) -> JsonDict:
    shown: JsonDict = {"subject": subject, "account": account, "to": local, "local_subject": local, "type": "service"}
    return shown | {"invalid": False, "share": shares, "tracking": False}


def sublist_stats(sublists: Collection[SublistView]) -> JsonDict:
    """The counters of one or several accounts' subscriptions. No matches: counting them would cost every message."""
    fanouts = [(sublist.cached(), *sublist.fanout()) for sublist in sublists]
    cached = sum(count for count, _, _ in fanouts)
    reached = sum(count * average for count, _, average in fanouts)
    return {
        "num_subscriptions": sum(len(sublist) for sublist in sublists),
        "num_cache": cached,
        "num_inserts": sum(sublist.inserts for sublist in sublists),
        "num_removes": sum(sublist.removes for sublist in sublists),
        "num_matches": 0,
        "cache_hit_rate": 0,
        "max_fanout": max((most for _, most, _ in fanouts), default=0),
        "avg_fanout": reached / cached if cached else 0,
    }


# -- traffic ------------------------------------------------------------------------------------------------------


def accstatz(source: MonitorSource, query: Query) -> JsonDict:
    """Traffic of the accounts that have connections; with ``unused`` of all."""
    return accounts_statz(source, with_unused=query.flag("unused"))


def accounts_statz(source: MonitorSource, names: Collection[str] = (), *, with_unused: bool = False) -> JsonDict:
    """Traffic of these accounts (none named: of all) as far as they have connections, or ``with_unused`` anyway."""
    wanted = [account for account in source.accounts if not names or account.name in names]
    return {
        "server_id": source.facts.server_id,
        "now": format_time(source.wall_ns()),
        "account_statz": [account_stat(source, each) for each in wanted if with_unused or each.connections],
    }


def account_stat(source: MonitorSource, account: AccountView) -> JsonDict:
    """One account's connections, subscriptions and traffic, as seen from it: ``received`` was published in it."""
    closed = account.closed
    sent, received = [closed.out_msgs, closed.out_bytes], [closed.in_msgs, closed.in_bytes]
    for connection in source.clients.connections.values():
        if connection.account is account:
            sent[0] += connection.out_msgs
            sent[1] += connection.out_bytes
            received[0] += connection.in_msgs
            received[1] += connection.in_bytes
    return {
        "acc": account.name,
        "name": account.name,
        "conns": account.connections,
        "leafnodes": 0,
        "total_conns": account.connections,
        "num_subscriptions": len(account.sublist),
        "sent": _traffic(sent),
        "received": _traffic(received),
        "slow_consumers": closed.slow_consumers,
    }


def _traffic(counts: list[int]) -> JsonDict:
    messages, size_bytes = counts
    beyond = {kind: {"msgs": 0, "bytes": 0} for kind in ("gateways", "routes", "leafs")}
    return {"msgs": messages, "bytes": size_bytes, **beyond}
