"""What monitoring reads: views that the server's objects satisfy as they are. Reading is cheap and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from jetstore.model.infos import AccountInfo, ApiStats, ConsumerInfo, StreamInfo
from jetstore.model.requests import StreamInfoRequest
from jetstore.model.stream import StreamConfig
from server.config.accounts import SYSTEM_ACCOUNT, AccountOptions
from server.config.authorization import GLOBAL_ACCOUNT
from server.monitor.cluster_ports import ClusterCounters, ClusterFacts

JsonDict = dict[str, Any]  # Any: a JSON value


class ConnectionView(Protocol):
    """One client connection at one moment; ``in`` was published by the client. Times are wall nanoseconds."""

    @property
    def cid(self) -> int: ...
    @property
    def ip(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def last_activity_ns(self) -> int: ...
    @property
    def uptime_ns(self) -> int: ...
    @property
    def idle_ns(self) -> int: ...
    @property
    def rtt_ns(self) -> int: ...
    @property
    def pending_bytes(self) -> int: ...
    @property
    def in_msgs(self) -> int: ...
    @property
    def out_msgs(self) -> int: ...
    @property
    def in_bytes(self) -> int: ...
    @property
    def out_bytes(self) -> int: ...
    @property
    def stalls(self) -> int: ...
    @property
    def subscriptions(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def lang(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def authorized_user(self) -> str: ...
    @property
    def account(self) -> str: ...
    @property
    def stop_ns(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def client_type(self) -> str: ...


class SubscriptionView(Protocol):
    """One subscription of a client."""

    @property
    def subject(self) -> bytes: ...
    @property
    def queue(self) -> bytes: ...
    @property
    def sid(self) -> bytes: ...
    @property
    def delivered(self) -> int: ...
    @property
    def max_messages(self) -> int: ...


class OpenConnection(Protocol):
    """An open connection."""

    @property
    def account(self) -> AccountView: ...
    @property
    def in_msgs(self) -> int: ...
    @property
    def in_bytes(self) -> int: ...
    @property
    def out_msgs(self) -> int: ...
    @property
    def out_bytes(self) -> int: ...
    @property
    def subscriptions(self) -> Mapping[bytes, SubscriptionView]: ...
    def stats(self) -> ConnectionView: ...


class TrafficView(Protocol):
    """Counters over all client connections, closed ones included."""

    @property
    def total_connections(self) -> int: ...
    @property
    def in_msgs(self) -> int: ...
    @property
    def in_bytes(self) -> int: ...
    @property
    def out_msgs(self) -> int: ...
    @property
    def out_bytes(self) -> int: ...
    @property
    def slow_consumers(self) -> int: ...
    @property
    def stale_connections(self) -> int: ...
    @property
    def stalled_clients(self) -> int: ...


class ClientsView(Protocol):
    """All client connections."""

    @property
    def connections(self) -> Mapping[int, OpenConnection]: ...
    @property
    def closed(self) -> Iterable[ConnectionView]: ...
    def traffic(self) -> TrafficView: ...


class SublistView(Protocol):
    """The subscriptions of an account."""

    inserts: int
    removes: int

    def __len__(self) -> int: ...
    def cached(self) -> int: ...
    def fanout(self) -> tuple[int, float]: ...


class AccountView(Protocol):
    """An account."""

    @property
    def name(self) -> str: ...
    @property
    def is_system(self) -> bool: ...
    @property
    def connections(self) -> int: ...
    @property
    def closed(self) -> TrafficView: ...
    @property
    def sublist(self) -> SublistView: ...
    @property
    def options(self) -> AccountOptions: ...


class JetStreamView(Protocol):
    """The account's JetStream: the reading half of what the API table uses."""

    def account_info(self) -> AccountInfo: ...
    def stream_configs(self) -> Sequence[StreamConfig]: ...
    async def stream_info(self, name: str, request: StreamInfoRequest) -> StreamInfo: ...
    def consumer_names(self, stream: str) -> Sequence[str]: ...
    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo: ...


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """The engine's own counters at one moment."""

    journal_blocks: int
    journal_records: int
    journal_used_bytes: int
    journal_max_bytes: int
    checkpoints: int
    accepts_publishes: bool
    publishes: int
    publish_entries: int
    sync_buckets_s: Sequence[float]
    """Upper bounds of the block-latency histogram, the last one infinite."""
    sync_histogram: Sequence[int]
    sync_seconds_total: float
    lag_buckets_s: Sequence[float]
    lag_histogram: Sequence[int]
    lag_seconds_total: float
    scrub_bytes: int = 0
    """Read again in the background."""
    scrub_rounds: int = 0
    scrub_found: int = 0
    """Damaged places found by the scrub, each once a round."""
    damaged_places: int = 0
    """Damaged places known now."""
    index_rebuilds: int = 0
    encrypting: bool = False
    """There is a key, and something that was stored before may not be encrypted with it yet."""


@dataclass(frozen=True, slots=True)
class JetStreamFacts:
    """What does not change about JetStream while the server runs."""

    max_memory_bytes: int
    max_storage_bytes: int
    store_dir: str
    is_strict: bool = True
    domain: str = ""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What does not change about the server while it runs."""

    server_id: str
    server_name: str
    version: str
    """The nats-server version whose surface this is."""
    jetstore: str
    go: str
    """Runtime, free text."""
    host: str
    port: int
    cluster: str
    max_connections: int
    ping_interval_ns: int
    ping_max: int
    http_host: str
    http_port: int
    https_port: int
    http_base_path: str
    auth_required: bool
    auth_timeout_ns: int
    max_control_line: int
    max_payload: int
    max_pending: int
    write_deadline_ns: int
    start_ns: int
    config_digest: str = ""
    account: str = GLOBAL_ACCOUNT
    """The one with JetStream."""
    system_account: str = SYSTEM_ACCOUNT
    tls_required: bool = False
    tls_verify: bool = False
    websocket_host: str = ""
    websocket_port: int = 0
    """0: it does not listen for them."""
    websocket_no_tls: bool = False
    config_loaded_ns: int = 0
    """Wall clock; 0 = when the server started."""
    tags: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MonitorSource:
    """Everything monitoring reads. Built by the composition root."""

    facts: ServerFacts
    clients: ClientsView
    accounts: Sequence[AccountView]
    wall_ns: Callable[[], int]
    jetstream: JetStreamView | None = None
    """None: JetStream is off."""
    jetstream_facts: JetStreamFacts | None = None
    api_stats: Callable[[], ApiStats] = ApiStats
    engine: Callable[[], EngineCounters] | None = None
    health_problem: Callable[[], str] = str
    """Why the server should get no traffic now; "" = healthy."""
    engine_problem: Callable[[], str] = str
    """The same, of the engine as a whole: what only a new start could help."""
    meta_problem: Callable[[], str] = str
    """The same, of the engine and of what a cluster has decided."""
    stream_problem: Callable[[str], str] = lambda _: ""
    """The same, of one stream besides."""
    cluster_facts: ClusterFacts | None = None
    """None: the server is alone."""
    cluster: Callable[[], ClusterCounters] | None = None
    leader_of: Callable[[str], str] | None = None
    """Stream → the name of the server that leads it; None: this one leads all."""

    meta_cluster: Callable[[], JsonDict | None] = lambda: None
    """``meta_cluster`` of /jsz; None: the server is alone."""

    others: tuple[MonitorSource, ...] = ()
    """The same of every other account that has JetStream: what ``jetstream`` and ``facts.account`` are is theirs."""

    def of_jetstream(self) -> tuple[MonitorSource, ...]:
        """One for each account that has JetStream."""
        return (self, *self.others) if self.jetstream is not None else ()

    def jetstream_of(self, account: str) -> MonitorSource | None:
        """The same of one account."""
        return next((each for each in self.of_jetstream() if each.facts.account == account), None)

    def jetstream_totals(self) -> tuple[AccountInfo, ApiStats]:
        """Usage and API counters of all accounts."""
        assert self.jetstream is not None
        total, api = self.jetstream.account_info(), self.api_stats()
        for each in self.others:
            assert each.jetstream is not None
            info, more = each.jetstream.account_info(), each.api_stats()
            total = replace(
                total,
                memory=total.memory + info.memory,
                storage=total.storage + info.storage,
                reserved_memory=total.reserved_memory + info.reserved_memory,
                reserved_storage=total.reserved_storage + info.reserved_storage,
                streams=total.streams + info.streams,
                consumers=total.consumers + info.consumers,
            )
            api = ApiStats(api.total + more.total, api.errors + more.errors, api.inflight + more.inflight)
        return total, api

    def subscriptions(self) -> int:
        """Of all accounts."""
        return sum(len(account.sublist) for account in self.accounts)
