"""A monitored server made of plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jetstore.model.api_errors import api_error
from jetstore.model.consumer import ConsumerConfig
from jetstore.model.infos import AccountInfo, ApiStats, ConsumerInfo, SequenceInfo, StreamInfo, StreamState
from jetstore.model.requests import StreamInfoRequest
from jetstore.model.stream import StreamConfig
from server.config.accounts import AccountOptions
from server.monitor.ports import JetStreamFacts, MonitorSource, ServerFacts

SECOND = 1_000_000_000
NOW_NS = 1_700_000_100 * SECOND


@dataclass(frozen=True)
class Connection:
    """As the front end's own statistics."""

    cid: int
    ip: str = "127.0.0.1"
    port: int = 5000
    start_ns: int = NOW_NS - 60 * SECOND
    last_activity_ns: int = NOW_NS - 5 * SECOND
    uptime_ns: int = 60 * SECOND
    idle_ns: int = 5 * SECOND
    rtt_ns: int = 1_500_000
    pending_bytes: int = 0
    in_msgs: int = 0
    out_msgs: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    stalls: int = 0
    subscriptions: int = 0
    name: str = ""
    lang: str = "python3"
    version: str = "2"
    authorized_user: str = ""
    account: str = "$G"
    stop_ns: int = 0
    reason: str = ""
    client_type: str = "nats"


@dataclass(frozen=True)
class Subscription:
    subject: bytes
    sid: bytes
    queue: bytes = b""
    delivered: int = 0
    max_messages: int = 0


@dataclass
class OpenConnection:
    view: Connection
    account: Account
    subscriptions: dict[bytes, Subscription] = field(default_factory=dict)

    @property
    def in_msgs(self) -> int:
        return self.view.in_msgs

    @property
    def in_bytes(self) -> int:
        return self.view.in_bytes

    @property
    def out_msgs(self) -> int:
        return self.view.out_msgs

    @property
    def out_bytes(self) -> int:
        return self.view.out_bytes

    def stats(self) -> Connection:
        return replace(self.view, subscriptions=len(self.subscriptions))


@dataclass
class Traffic:
    total_connections: int = 9
    in_msgs: int = 10
    in_bytes: int = 100
    out_msgs: int = 20
    out_bytes: int = 200
    slow_consumers: int = 1
    stale_connections: int = 2
    stalled_clients: int = 3


@dataclass
class Clients:
    connections: dict[int, OpenConnection] = field(default_factory=dict)
    closed: list[Connection] = field(default_factory=list)

    def traffic(self) -> Traffic:
        return Traffic()


@dataclass
class Sublist:
    count: int = 5
    inserts: int = 6
    removes: int = 1

    def __len__(self) -> int:
        return self.count

    def cached(self) -> int:
        return 2

    def fanout(self) -> tuple[int, float]:
        return 3, 1.5


@dataclass
class Account:
    name: str
    is_system: bool = False
    connections: int = 0
    sublist: Sublist = field(default_factory=Sublist)
    closed: Traffic = field(default_factory=Traffic)
    options: AccountOptions = AccountOptions("")


class JetStream:
    """Two streams; the first has a consumer."""

    def __init__(self) -> None:
        self.streams = ["S", "T"]
        self.deleted: set[str] = set()
        """Listed, yet gone when asked for."""
        self.damaged: dict[str, Exception] = {}
        """Listed, and answered with this."""

    def account_info(self) -> AccountInfo:
        return AccountInfo(storage=134, streams=2, consumers=1)

    def stream_configs(self) -> Sequence[StreamConfig]:
        return [StreamConfig(name=name, subjects=(f"{name}.>",), num_replicas=1) for name in self.streams]

    async def stream_info(self, name: str, request: StreamInfoRequest) -> StreamInfo:
        if name in self.deleted:
            raise api_error("JSStreamNotFoundErr")
        if name in self.damaged:
            raise self.damaged[name]
        state = StreamState(messages=3, bytes=67, first_seq=1, last_seq=3, num_subjects=2, consumer_count=1)
        return StreamInfo(StreamConfig(name=name), NOW_NS, state)

    def consumer_names(self, stream: str) -> Sequence[str]:
        return ["d"] if stream == "S" else []

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo:
        return ConsumerInfo(
            stream, consumer, NOW_NS, ConsumerConfig(name=consumer), SequenceInfo(4, 3, NOW_NS), num_pending=7
        )


FACTS = ServerFacts(
    server_id="N" + "A" * 55,
    server_name="srv",
    version="2.15.1",
    jetstore="0.1.0",
    go="python3.11",
    host="127.0.0.1",
    port=4222,
    cluster="c1",
    max_connections=65536,
    ping_interval_ns=120 * SECOND,
    ping_max=2,
    http_host="127.0.0.1",
    http_port=8222,
    https_port=0,
    http_base_path="",
    auth_required=False,
    auth_timeout_ns=2 * SECOND,
    max_control_line=4096,
    max_payload=1048576,
    max_pending=67108864,
    write_deadline_ns=10 * SECOND,
    start_ns=NOW_NS - 3_725 * SECOND,
    config_digest="sha256:x",
)


def make_source(jetstream: JetStream | None = None, health_problem: str = "", **facts: object) -> MonitorSource:
    """A source with two open connections and a closed one."""
    subscriptions = {b"1": Subscription(b"a.*", b"1"), b"2": Subscription(b"b", b"2", b"q")}
    home, other = Account("$G", connections=1), Account("A", connections=1, sublist=Sublist(2))
    system = Account("$SYS", is_system=True, sublist=Sublist(4))
    clients = Clients(
        {
            1: OpenConnection(Connection(1, in_msgs=5, out_msgs=1, name="one"), home, subscriptions),
            2: OpenConnection(Connection(2, in_msgs=7, out_msgs=0, authorized_user="u", account="A", rtt_ns=0), other),
        },
        [Connection(3, stop_ns=NOW_NS - SECOND, reason="Client Closed")],
    )
    return MonitorSource(
        facts=replace(FACTS, **facts),  # type: ignore[arg-type]
        clients=clients,
        accounts=(home, other, system),
        wall_ns=lambda: NOW_NS,
        jetstream=jetstream,
        jetstream_facts=JetStreamFacts(10**9, 10**10, "/data/jetstore") if jetstream else None,
        api_stats=lambda: ApiStats(11, 2, 0),
        health_problem=lambda: health_problem,
        engine_problem=lambda: health_problem if "disk" in health_problem else "",
        meta_problem=lambda: health_problem if "stream" not in health_problem else "",
        stream_problem=lambda stream: health_problem if f"{stream} is" in health_problem else "",
    )
