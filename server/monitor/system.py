"""The system account's services: the monitoring pages by request, from every server or by a server's id."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

from jetstore.model.json import encode
from jetstore.model.times import format_time
from jetstore.types import Nanos
from server.monitor.accountz import account_named, account_stat
from server.monitor.connz import connz
from server.monitor.healthz import healthz
from server.monitor.jsz import jsz
from server.monitor.ports import MonitorSource
from server.monitor.process import ProcessUsage
from server.monitor.query import BadParameter, Query
from server.monitor.routez import routez
from server.monitor.subsz import subsz
from server.monitor.varz import jetstream_config_json, jetstream_stats_json, varz

JsonDict = dict[str, Any]  # Any: JSON values
NAMES: Final = ("IDZ", "STATSZ", "VARZ", "SUBSZ", "CONNZ", "ROUTEZ", "JSZ", "HEALTHZ")
_PARAMETERS: Final = {
    "account": "acc",
    "subscriptions": "subs",
    "consumer": "consumers",
    "direct_consumer": "direct-consumers",
    "leader_only": "leader-only",
    "stream_leader_only": "stream-leader-only",
}
"""Options of requests that the pages call otherwise."""
_ACCOUNT_BY_NAME: Final = frozenset({"HEALTHZ"})
_STATES: Final = {0: "open", 1: "closed", 2: "all"}


class SystemPages:
    """Answers requests; pages are those of ``monitor.py``."""

    def __init__(self, source: MonitorSource) -> None:
        self.source = source
        self._usage = ProcessUsage()
        self._answers = 0

    def server(self) -> JsonDict:
        """The ``server`` object of answers."""
        facts, source = self.source.facts, self.source
        self._answers += 1
        shown: JsonDict = {"name": facts.server_name, "host": facts.host, "id": facts.server_id}
        if facts.cluster:
            shown["cluster"] = facts.cluster
        has_jetstream = source.jetstream is not None
        shown |= {"ver": facts.version, "jetstream": has_jetstream, "flags": 1 if has_jetstream else 0}
        return shown | {"seq": self._answers, "time": format_time(Nanos(source.wall_ns()))}

    async def answer(self, name: str, body: bytes, *, is_ping: bool) -> bytes | None:
        """The reply to one request; None: it is not for this server."""
        try:
            options = json.loads(body) if body.strip() else {}
            if not isinstance(options, dict):
                raise ValueError("expected an object")
        except ValueError as error:
            return self._refused(400, str(error))
        options = {key.lower(): value for key, value in options.items()}
        if is_ping and not self._is_meant(options):
            return None
        if name == "IDZ":
            facts = self.source.facts
            return encode({"name": facts.server_name, "host": facts.host, "id": facts.server_id})
        if name == "":
            return encode({"server": self.server(), "statsz": self.statsz()})
        try:
            data = await self._page(name, Query(_query_text(name, options)))
        except BadParameter as error:
            return self._refused(500, str(error))
        return encode({"server": self.server(), "data": data})

    def wrapped(self, data: JsonDict | None, error: str = "") -> bytes:
        """An answer with this data, or with code 500."""
        if error:
            return self._refused(500, error)
        return encode({"server": self.server()} if data is None else {"server": self.server(), "data": data})

    def _refused(self, code: int, text: str) -> bytes:
        return encode({"server": self.server(), "error": {"code": code, "description": text}})

    def _is_meant(self, options: JsonDict) -> bool:
        """Whether the filters of a request to all servers let this one answer."""
        facts = self.source.facts
        matches: Callable[[str, str], bool] = str.__eq__ if options.get("exact_match") else str.__contains__
        for option, value in (("server_name", facts.server_name), ("cluster", facts.cluster), ("host", facts.host)):
            wanted = options.get(option)
            if wanted and not matches(value, str(wanted)):
                return False
        return not options.get("tags") and not options.get("domain")

    async def _page(self, name: str, query: Query) -> JsonDict:
        source = self.source
        match name:
            case "STATSZ":
                return self.statsz()
            case "VARZ":
                return varz(source, self._usage.sample(), {})
            case "SUBSZ":
                return subsz(source, query)
            case "CONNZ":
                return connz(source, query)
            case "ROUTEZ":
                return routez(source)
            case "JSZ":
                return await jsz(source, query)
        status, body = healthz(source, query)
        return {**body, "status_code": status}

    def account_stat(self, name: str) -> JsonDict:
        """Connections and traffic of an account, which there is."""
        account = account_named(self.source, name)
        return account_stat(self.source, account) if account is not None else {}

    def statsz(self) -> JsonDict:
        """The server's counters."""
        source, usage = self.source, self._usage.sample()
        all_of = varz(source, usage, {})
        sent = {"msgs": all_of["out_msgs"], "bytes": all_of["out_bytes"]}
        received = {"msgs": all_of["in_msgs"], "bytes": all_of["in_bytes"]}
        kept = ("start", "mem", "cores", "cpu", "connections", "total_connections")
        shown: JsonDict = {name: all_of[name] for name in kept}
        shown |= {
            "active_accounts": sum(account.connections > 0 for account in source.accounts),
            "subscriptions": all_of["subscriptions"],
        }
        shown |= {"sent": sent, "sent_to_clients": sent, "received": received, "received_from_clients": received}
        shown |= {"slow_consumers": all_of["slow_consumers"], "active_servers": 1}
        if source.jetstream is not None and source.jetstream_facts is not None:
            config = jetstream_config_json(source.jetstream_facts)
            del config["store_dir"]
            stats = jetstream_stats_json(source.jetstream.account_info(), source.api_stats())
            shown["jetstream"] = {"config": config, "stats": stats, "limits": {}}
        return shown | {"gomaxprocs": all_of["cores"]}


def _query_text(name: str, options: JsonDict) -> str:
    found: dict[str, str] = {}
    for option, value in options.items():
        key = option if name in _ACCOUNT_BY_NAME else _PARAMETERS.get(option, option)
        if option == "subscriptions_detail":
            if value is True:
                found["subs"] = "detail"
        elif option == "state" and isinstance(value, int):
            found["state"] = _STATES.get(value, str(value))
        elif isinstance(value, bool):
            found.setdefault(key, "1" if value else "0")
        elif isinstance(value, str | int):
            found[key] = str(value)
    return urlencode(found)
