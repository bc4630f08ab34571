"""The system account's services: the monitoring pages by request, from every server or by a server's id."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from jetstore.model.json import encode
from jetstore.model.times import format_time
from jetstore.node.advisories import nuid
from jetstore.types import Nanos
from server.monitor.accountz import account_detail, account_named, account_stat, accounts_statz, accountz
from server.monitor.connz import connz
from server.monitor.healthz import healthz
from server.monitor.jsz import Wanted, jetstream_detail, jsz
from server.monitor.ports import MonitorSource
from server.monitor.process import ProcessUsage
from server.monitor.query import BadParameter, Query
from server.monitor.routez import gatewayz, leafz, routez
from server.monitor.subsz import subsz
from server.monitor.system_options import BadOptions, query_of, read_options
from server.monitor.varz import jetstream_config_json, jetstream_stats_json, labels, varz

JsonDict = dict[str, Any]  # Any: JSON values
ALL_ACCOUNTS: Final = "PING"
"""In the place of an account's name in a subject."""
META_GROUP: Final = "_meta_"
_TYPE: Final = "io.nats.server.advisory.v1."
_ADVISORY: Final = "io.nats.jetstream.advisory.v1."


class SystemPages:
    """Answers requests; pages are those of ``monitor.py``."""

    def __init__(self, source: MonitorSource, rng: Random) -> None:
        """``rng`` makes the ids of events."""
        self.source = source
        self._rng = rng
        self._usage = ProcessUsage()
        self._answers = 0

    def server(self) -> JsonDict:
        """The ``server`` object of answers."""
        facts, source = self.source.facts, self.source
        self._answers += 1
        shown: JsonDict = {"name": facts.server_name, "host": facts.host, "id": facts.server_id}
        if facts.cluster:
            shown["cluster"] = facts.cluster
        if self._domain:
            shown["domain"] = self._domain
        has_jetstream = source.jetstream is not None
        shown |= {"ver": facts.version, **labels(facts), "jetstream": has_jetstream, "flags": 1 if has_jetstream else 0}
        return shown | {"seq": self._answers, "time": format_time(Nanos(source.wall_ns()))}

    async def answer(self, name: str, body: bytes, *, is_ping: bool) -> bytes | None:
        """The reply to one request; None: it is not for this server."""
        if name == "IDZ":  # who is there is told whatever was asked
            facts = self.source.facts
            return encode({"name": facts.server_name, "host": facts.host, "id": facts.server_id})
        try:
            options = read_options(name or "STATSZ", body)
        except BadOptions as error:
            return self._refused(400, str(error))
        if is_ping and not self._is_meant(options):
            return None
        if name == "JSZ" and options.get("leader_only") and not self._leads_meta():
            return None
        if name in ("", "STATSZ"):
            return encode({"server": self.server(), "statsz": self.statsz()})
        try:
            data = await self._page(name, query_of(name, options), options.get("filter_subject", ""))
        except BadParameter as error:
            return self._failed(str(error))
        return encode({"server": self.server(), "data": data})

    async def answer_about(self, account: str, name: str, body: bytes, *, is_own: bool = False) -> bytes | None:
        """The reply to a request about one account; None: there is nothing to say.

        ``is_own``: members of that account ask, who may ask like the system account's, yet learn of nothing else.
        """
        try:
            options = read_options(name, body)
        except BadOptions as error:
            return self._refused(400, str(error))
        if is_own and not self._is_meant(options):
            return None
        if name == "CONNS":
            known = account_named(self.source, account)
            if known is None or not known.connections:
                return None
            return encode(self.event("account_connections", account_stat(self.source, known)))
        try:
            data = await self._about(account, name, options, is_own=is_own)
        except BadParameter as error:
            return self._failed(str(error))
        return encode({"server": self.server(), "data": data}) if data is not None else None

    async def _about(self, account: str, name: str, options: JsonDict, *, is_own: bool) -> JsonDict | None:
        source = self.source
        match name:
            case "INFO":
                return account_detail(source, account)
            case "STATZ":
                is_all = account == ALL_ACCOUNTS and not is_own
                names = [str(each) for each in options.get("accounts", ())] if is_all else [account]
                shown = accounts_statz(source, names, with_unused=options.get("include_unused", False))
                return shown if shown["account_statz"] else None
            case "JSZ":
                if source.jetstream is None:
                    raise BadParameter("jetstream not enabled")
                if account_named(source, account) is None:
                    raise BadParameter(f'account "{account}" not found')
                found = source.jetstream_of(account)
                if found is None:
                    raise BadParameter(f'account "{account}" not jetstream enabled')
                flags = {name: bool(options.get(name)) for name in ("streams", "consumer", "config", "raft")}
                led_only = options.get("stream_leader_only", False)
                return await jetstream_detail(
                    found, Wanted(flags["streams"], flags["consumer"], flags["config"], flags["raft"], led_only)
                )
            case "SUBSZ":
                options = {"subscriptions": True, **options}
        # Not an account that the request names.
        options = {key: value for key, value in options.items() if key not in ("acc", "account")} | {"acc": account}
        return await self._page(name, query_of(name, options), options.get("filter_subject", ""))

    def event(self, kind: str, body: JsonDict) -> JsonDict:
        """An event of this kind."""
        now = format_time(Nanos(self.source.wall_ns()))
        return {"type": _TYPE + kind, "id": nuid(self._rng), "timestamp": now, "server": self.server(), **body}

    def advisory(self, kind: str, body: JsonDict) -> JsonDict:
        """An advisory of JetStream about this server."""
        facts, now = self.source.facts, format_time(Nanos(self.source.wall_ns()))
        shown = {"type": _ADVISORY + kind, "id": nuid(self._rng), "timestamp": now, "server": facts.server_name, **body}
        return shown | ({"domain": self._domain} if self._domain else {})

    def wrapped(self, data: JsonDict | None, error: str = "") -> bytes:
        """An answer with this data, or with code 500."""
        if error:
            return self._refused(500, error)
        return encode({"server": self.server()} if data is None else {"server": self.server(), "data": data})

    def _failed(self, text: str) -> bytes:
        return encode({"server": self.server(), "data": None, "error": {"code": 500, "description": text}})

    def _refused(self, code: int, text: str) -> bytes:
        return encode({"server": self.server(), "error": {"code": code, "description": text}})

    def _leads_meta(self) -> bool:
        """Whether it leads the metadata of its cluster, or is alone."""
        meta = self.source.meta_cluster()
        return meta is None or meta.get("leader") == self.source.facts.server_name

    def _is_meant(self, options: JsonDict) -> bool:
        """Whether the filters of a request to all servers let this one answer."""
        facts = self.source.facts
        matches: Callable[[str, str], bool] = str.__eq__ if options.get("exact_match") else str.__contains__
        for option, value in (("server_name", facts.server_name), ("cluster", facts.cluster), ("host", facts.host)):
            wanted = options.get(option)
            if wanted and not matches(value, str(wanted)):
                return False
        if not {str(tag).lower() for tag in options.get("tags", ())} <= set(facts.tags):
            return False
        wanted = options.get("domain")
        return not wanted or wanted == self._domain

    @property
    def _domain(self) -> str:
        """Of JetStream; "" = none."""
        facts = self.source.jetstream_facts
        return facts.domain if facts is not None else ""

    async def _page(self, name: str, query: Query, subject: str) -> JsonDict:
        source = self.source
        match name:
            case "VARZ":
                return varz(source, self._usage.sample(), {})
            case "SUBSZ":
                return subsz(source, query)
            case "CONNZ":
                return connz(source, query, subject)
            case "ROUTEZ":
                return routez(source)
            case "LEAFZ":
                return leafz(source)
            case "GATEWAYZ":
                return gatewayz(source)
            case "ACCOUNTZ":
                return accountz(source, query)
            case "JSZ":
                return await jsz(source, query)
        status, body = healthz(source, query)
        return {**body, "status_code": status}

    def _meta(self) -> JsonDict:
        """The leader tells of the whole cluster; tools know it by that."""
        meta = self.source.meta_cluster()
        if meta is None:
            return {}
        if meta.get("leader") == self.source.facts.server_name:
            return {"meta": meta}
        rest = {name: value for name, value in meta.items() if name not in ("name", "replicas")}
        return {"meta": {"name": META_GROUP, **rest}}

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
            stats = jetstream_stats_json(source)
            shown["jetstream"] = {"config": config, "stats": stats, **self._meta(), "limits": {}}
        return shown | {"gomaxprocs": all_of["cores"]}
