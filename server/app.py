"""The composition root: the only place that builds the object graph.

``Server`` is one server over a given ``World`` (event loop, clock, dice) and ``Store``; ``server/run.py`` gives it the
real ones, the simulator virtual ones.
"""

from __future__ import annotations

import asyncio
import base64
import platform
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import structlog

import jetstore
from jetstore.clock import Clock
from jetstore.limits import Limits
from jetstore.meta.stream_key import GLOBAL_ACCOUNT
from jetstore.model.infos import AccountLimits, stream_info_json
from jetstore.model.levels import API_LEVEL, NATS_VERSION
from jetstore.model.requests import StreamInfoRequest
from jetstore.model.server_limits import ServerLimits
from jetstore.node.cluster_info import meta_cluster
from jetstore.node.node import Node, NodeParts
from jetstore.node.opening import Indexes
from jetstore.node.rooms import RoomLimits
from jetstore.node.streams_api import StreamsApi
from jetstore.store.ports import Disk, JournalRecovery
from jetstore.store.vfs import Vfs
from server.auth.authenticator import ANONYMOUS, Authenticator, configured
from server.config.accounts import SYSTEM_ACCOUNT
from server.config.options import Options
from server.events import SystemEvents
from server.facts import cluster_facts, engine_counters
from server.jsapi.handler import ApiHandler
from server.jsapi.table import ANSWERED, is_never_answered
from server.jsapi.without import without_jetstream
from server.monitor.cluster_view import LocalStreams, cluster_counters
from server.monitor.health_view import engine_problem, meta_problem, stream_problem
from server.monitor.ports import JetStreamFacts, MonitorSource, ServerFacts
from server.net.accounts import Accounts
from server.net.client_server import ClientServer
from server.net.options import NetOptions
from server.net.stats import client_info
from server.net.tls import context_of
from server.protocol.client import ProtocolOptions
from server.protocol.info import ServerInfo
from server.route.latency import Latencies
from server.route.router import Router
from server.route.tracing import Tracing
from server.system import UNSHARED, SystemServices

if TYPE_CHECKING:
    from jetstore.node.cluster import Cluster
    from server.monitor.monitor import Monitor
    from server.route.peers import Peers

log = structlog.get_logger("server")

ACCOUNT = "$G"
NO_FILE = "can only reload config when a file is provided using -c or --config"


@dataclass(frozen=True, slots=True)
class Store:
    """An opened store: what the journal proved, and who writes from now on."""

    vfs: Vfs
    disk: Disk
    recovery: JournalRecovery
    indexes: Indexes
    cluster: Cluster | None = None
    """This node's place among others; None: it is alone."""


@dataclass(frozen=True, slots=True)
class World:
    """Where time, chance and disk come from."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    rng: Random
    limits: Limits
    server_limits: ServerLimits
    entropy: Callable[[int], bytes] | None = None
    """Random bytes for what must not be foreseen; None: ``rng`` gives them."""


class Server:
    """One NATS server. ``start`` returns when it serves; ``stop`` ends it cleanly."""

    def __init__(
        self, options: Options, world: World, store: Store | None, on_poison: Callable[[BaseException], None]
    ) -> None:
        """``store`` None: without JetStream. ``on_poison`` is called once if the disk fails: the process must end."""
        self.options = options
        self.world = world
        self.started_ns = world.clock.wall_ns()
        self.server_id = make_server_id(world.rng)
        self.server_name = options.server_name or self.server_id
        seed = self._seed = world.rng.random()
        self.cluster = store.cluster if store is not None else None
        self.peers: Peers | None = None
        """Other nodes, as routers know them; None: there are none."""
        if self.cluster is not None:
            from server.route.peers import Peers  # as all that is for a cluster: start-up time

            self.peers = Peers(
                self.cluster.links,
                world.limits,
                world.loop.call_soon,
                system_account=options.system_name,
                unshared=frozenset([*UNSHARED, *(subject.encode() for subject in ANSWERED)]),
            )
        self.router = self._new_router(ACCOUNT, Random(seed))
        self.accounts = Accounts(
            self.router,
            options.accounts,
            options.mappings,
            options.system_account or SYSTEM_ACCOUNT,
            lambda name: self._new_router(name, Random(f"{seed} {name}")),
            lambda: world.clock.wall_ns() / 1e9,
            world.loop.call_later,
        )
        self.info = ServerInfo(
            server_id=self.server_id,
            server_name=self.server_name,
            version=NATS_VERSION,
            jetstore=jetstore.__version__,
            go=f"python{platform.python_version()}",
            host=options.host,
            port=options.port,
            max_payload=options.max_payload_bytes,
            headers=not options.no_header_support,
            jetstream=store is not None,
            api_lvl=API_LEVEL,
            cluster=options.cluster_name,
            domain=options.jetstream.domain if store is not None else "",
        )
        self.clients = ClientServer(
            net_options(options, world.limits.write_pause_bytes),
            self.info,
            authenticator(options),
            self.router,
            world.clock,
            Random(world.rng.random()),
            world.loop,
            world.entropy,
            self.accounts,
        )
        if options.tls is not None:
            self.clients.use_tls(options.tls, is_optional=options.allow_non_tls)
        self.config_loaded_ns = self.started_ns
        self.port = 0
        """Where clients connect; known once it listens."""
        self.reload: Callable[[], str] = lambda: NO_FILE
        """Read the configuration again: "" or why everything stays as it was. ``server/run.py`` puts its own here."""
        system = self.accounts[options.system_name].router
        self.system = SystemServices(
            self.server_id,
            system,
            [account.router for account in self.accounts if not account.is_system],
            self.monitor_source,
            self.clients.connections.get,
            lambda: self.reload(),
            Random(f"{seed} system"),
        )
        self.events = SystemEvents(self.server_id, system, self.accounts, lambda: self.system.pages, world.loop)
        self.clients.events = self.events
        self._tracing = Tracing(
            options.system_name, lambda: self.system.pages.server(), world.clock.wall_ns, Random(f"{seed} traces")
        )
        self._latencies = Latencies(
            world.clock.wall_ns, Random(f"{seed} latency"), world.loop.call_later, world.limits.latency_requests_max
        )
        for each in self.accounts:
            self.equip(each.router)
        self.monitor: Monitor | None = None
        self._monitor_tls: ssl.SSLContext | None = None
        self.http_port = 0
        self.websocket_port = 0
        self.node: Node | None = None
        self.api: ApiHandler | None = None
        self.jetstreams: dict[str, tuple[StreamsApi, ApiHandler]] = {}
        """By account: who has JetStream."""
        self.outcasts: dict[str, Router] = {}
        """Where streams of accounts are that have no JetStream any more: nobody hears of them."""
        self.refusals: dict[str, ApiHandler] = {}
        """What answers in the system account, and in accounts without JetStream."""
        if store is not None:
            for each in self.accounts:
                each.use_domain(options.jetstream.domain)
            name, limits = options.jetstream_account
            home = self.accounts[name].router
            has_several = len(options.jetstream_accounts) > 1
            self.node = Node(
                NodeParts(
                    vfs=store.vfs,
                    disk=store.disk,
                    recovery=store.recovery,
                    indexes=store.indexes,
                    limits=world.limits,
                    clock=world.clock,
                    loop=world.loop,
                    outlet=home,
                    rng=Random(world.rng.random()),
                    cluster=store.cluster,
                    on_poison=on_poison,
                    outlet_of=self._outlet_of if store.cluster is None else None,
                    room=room_limits(options) if store.cluster is None else None,
                )
            )
            own_name = name if self.cluster is None else GLOBAL_ACCOUNT  # a cluster's streams have plain keys
            self.streams = StreamsApi(self.node, world.server_limits, limits, own_name, is_only=not has_several)
            elsewhere = None
            if self.cluster is not None:
                from jetstore.node.whereabouts import Whereabouts
                from server.jsapi.elsewhere import Elsewhere

                elsewhere = Elsewhere(Whereabouts(self.node, self.cluster), self.cluster.links, self._of_leading)
                self.streams.consumers_elsewhere = elsewhere.consumer_configs
            self.api = ApiHandler(
                self.streams,
                home,
                world.clock,
                Random(world.rng.random()),
                world.limits,
                server_name=self.server_name,
                client_info=self.client_info,
                server_limits=world.server_limits,
                is_strict=options.jetstream.is_strict,
                elsewhere=elsewhere,
                pass_on=home.pass_on,
                on_dropped=self._requests_dropped,
            )
            home.serve_requests = self.api.on_passed_on
            self.node.on_out_of_room = self._out_of_room
            self.jetstreams[name] = (self.streams, self.api)
            home.has_jetstream = True
            for other, other_limits in options.jetstream_accounts.items():
                if other != name:
                    self.add_jetstream(other, other_limits)
            system_api = ApiHandler(
                self.streams,
                system,
                world.clock,
                Random(f"{seed} api {options.system_name}"),
                world.limits,
                server_name=self.server_name,
                client_info=self.client_info,
                is_strict=options.jetstream.is_strict,
                is_system=True,
                elsewhere=elsewhere,
                pass_on=system.pass_on,
                of_account=lambda account: found[0] if (found := self.jetstreams.get(account)) else None,
            )
            system.serve_requests = system_api.on_passed_on
            self.refusals[options.system_name] = system_api
            for account in self.accounts:
                if account.name not in self.jetstreams and not account.is_system:
                    self.refuse_jetstream(account.name)
                if not account.is_system:
                    account.router.leave_unanswered(is_never_answered)

    async def start(self, host: str | None = None) -> int:
        """Open the store's streams, then listen; the port in use."""
        if self.node is not None and self.api is not None:
            await self.node.start()
            for api in (*self._apis(), *self.refusals.values()):
                api.start()
            if self.outcasts:
                log.warning("streams of accounts without JetStream are kept", accounts=sorted(self.outcasts))
        self.system.start()
        self.events.start()
        if self.cluster is not None and self.peers is not None:
            self.cluster.links.attach_routing(self.peers)
        options = self.options
        self.port = await self.clients.start(options.host if host is None else host, options.port)
        self.info.host, self.info.port = advertised_address(options, self.port)
        given = options.websocket
        if given.port:
            self.websocket_port = await self.clients.start_websocket(given)
            scheme = "ws" if given.no_tls else "wss"
            log.info(f"Listening for websocket clients on {scheme}://{given.host}:{self.websocket_port}")
        if options.http_port or options.https_port:
            from server.monitor.monitor import Monitor  # a fifth of the start-up time: only where it is wanted

            if options.https_port and options.tls is not None:
                self._monitor_tls = context_of(replace(options.tls, verify=False))  # who asks needs no certificate
            self.monitor = Monitor(self.monitor_source())
            self.http_port = await self.monitor.start(
                options.http_host or options.host,
                options.http_port or options.https_port,
                self._monitor_tls,
            )
        return self.port

    def renew_monitor_certificate(self, options: Options) -> None:
        """The files may have changed: monitoring's new connections get what is there now."""
        if self._monitor_tls is not None and options.tls is not None:
            self._monitor_tls.load_cert_chain(options.tls.cert_file, options.tls.key_file, password=lambda: "")

    def _apis(self) -> list[ApiHandler]:
        return [api for _, api in self.jetstreams.values()]

    def equip(self, router: Router) -> None:
        """Give an account's router what all of them share."""
        router.tracing, router.latencies = self._tracing, self._latencies

    def refuse_jetstream(self, account: str) -> ApiHandler:
        """What says no in an account without JetStream; not started."""
        world = self.world
        self.refusals[account] = api = ApiHandler(
            without_jetstream(),
            self.accounts[account].router,
            world.clock,
            Random(f"{self._seed} api {account}"),
            world.limits,
            server_name=self.server_name,
            client_info=self.client_info,
            is_refusing=True,
        )
        return api

    def add_jetstream(self, account: str, limits: AccountLimits | None) -> ApiHandler:
        """JetStream in one more account; its API is not started."""
        assert self.node is not None
        world, router = self.world, self.accounts[account].router
        streams = StreamsApi(self.node, world.server_limits, limits, account)
        api = ApiHandler(
            streams,
            router,
            world.clock,
            Random(f"{self._seed} api {account}"),
            world.limits,
            server_name=self.server_name,
            client_info=self.client_info,
            server_limits=world.server_limits,
            is_strict=self.options.jetstream.is_strict,
            on_dropped=self._requests_dropped,
        )
        self.jetstreams[account] = (streams, api)
        router.has_jetstream = True
        return api

    def _requests_dropped(self, count: int) -> None:
        """So many requests of an account found no room."""
        self.events.advise("API.LIMIT_REACHED", "api_limit_reached", {"dropped": count})

    def _out_of_room(self) -> None:
        """Publishes are refused until the disk has room again."""
        where = {"cluster": self.options.cluster_name} if self.cluster is not None else {}
        fields = {"server_id": self.server_id, **where}
        self.events.advise("SERVER.OUT_OF_STORAGE", "server_out_of_space", fields)

    def _outlet_of(self, account: str) -> Router:
        """Where an account's streams are heard."""
        names = self.options.jetstream_accounts
        if account == GLOBAL_ACCOUNT and len(names) == 1:
            account = next(iter(names))  # streams with plain keys are its own
        if account in names:
            return self.accounts[account].router
        router = self.outcasts.get(account)
        if router is None:
            loop = self.world.loop
            router = self.outcasts[account] = Router(account, Random(account), loop.call_soon, loop.time)
        return router

    def new_router(self, account: str) -> Router:
        """The router of an account that a reload brings."""
        return self._new_router(account, Random(f"{self._seed} {account}"))

    def prepare(self, router: Router) -> None:
        """The same as all the others get at the start, for a router that clients come to now."""
        self.equip(router)
        router.drops_when_congested = self.options.no_fast_producer_stall
        router.flush_output = self.clients.flush
        if self.node is not None:
            router.leave_unanswered(is_never_answered)

    def _new_router(self, account: str, rng: Random) -> Router:
        loop = self.world.loop
        router = Router(account, rng, loop.call_soon, loop.time)
        if self.peers is not None and self.cluster is not None:
            router.replies.place = self.cluster.identity.node_id.encode()
            self.peers.attach(router)
        return router

    async def _of_leading(self, asked: dict[str, Any]) -> Any:  # Any: JSON
        """What another node asks of a stream that this one leads."""
        name = asked["stream"]
        if "consumers" in asked:
            return [config.to_json() for config in self.streams.consumer_configs(name)]
        info = await self.streams.stream_info(name, StreamInfoRequest(), asked["version"])
        domain = self.options.jetstream.domain
        return stream_info_json(info, self.world.clock.wall_ns(), dynamic_metadata=asked["is_dynamic"], domain=domain)

    async def stop(self) -> None:
        """Take no more clients, answer what is due, make it durable, let the store go."""
        self.clients.stop_listening()
        self.events.close()
        await self.system.close()
        for api in (*self._apis(), *self.refusals.values()):
            await api.close()
        if self.node is not None:
            await self.node.stop()
        await self.clients.stop()
        if self.monitor is not None:
            await self.monitor.close()

    def monitor_source(self) -> MonitorSource:
        """What the monitoring pages read."""
        options, info = self.options, self.info
        facts = ServerFacts(
            server_id=self.server_id,
            server_name=self.server_name,
            version=info.version,
            jetstore=info.jetstore,
            go=info.go,
            host=options.host,
            port=self.port,
            cluster=options.cluster_name,
            max_connections=options.max_connections,
            ping_interval_ns=options.ping_interval_ns,
            ping_max=options.ping_max,
            http_host=options.http_host or options.host,
            http_port=options.http_port,
            https_port=options.https_port,
            http_base_path=options.http_base_path,
            auth_required=self.clients.authenticator.is_told,
            auth_timeout_ns=options.authorization.timeout_ns,
            max_control_line=options.max_control_line_bytes,
            max_payload=options.max_payload_bytes,
            max_pending=options.max_pending_bytes,
            write_deadline_ns=options.write_deadline_ns,
            start_ns=self.started_ns,
            config_loaded_ns=self.config_loaded_ns,
            config_digest=options.config_digest,
            tags=options.server_tags,
            metadata=options.server_metadata,
            account=options.jetstream_account[0],
            system_account=options.system_name,
            tls_required=info.tls_required,
            tls_verify=info.tls_verify,
            websocket_host=options.websocket.host,
            websocket_port=self.websocket_port,
            websocket_no_tls=options.websocket.no_tls,
        )
        node, api = self.node, self.api
        if node is None or api is None:
            return MonitorSource(facts, self.clients, tuple(self.accounts), self.world.clock.wall_ns)
        limits, cluster, local = self.world.server_limits, node.cluster, LocalStreams(node, self.streams)
        source = MonitorSource(
            facts,
            self.clients,
            tuple(self.accounts),
            self.world.clock.wall_ns,
            jetstream=local,
            jetstream_facts=JetStreamFacts(
                limits.max_memory_bytes,
                limits.max_storage_bytes,
                options.jetstream.store_dir,
                options.jetstream.is_strict,
                options.jetstream.domain,
            ),
            api_stats=api.stats,
            engine=lambda: engine_counters(node),
            health_problem=node.health_problem,
            engine_problem=lambda: engine_problem(node),
            meta_problem=lambda: meta_problem(node),
            stream_problem=self._problem_of(node, options.jetstream_account[0], self.streams),
            cluster_facts=cluster_facts(options, cluster) if cluster is not None else None,
            cluster=(lambda: cluster_counters(node, cluster)) if cluster is not None else None,
            leader_of=lambda stream: local.leader_of(stream, cluster, self.server_name),
            meta_cluster=lambda: meta_cluster(node),
        )
        others = [
            replace(
                source,
                facts=replace(facts, account=name),
                jetstream=LocalStreams(node, streams),
                api_stats=other.stats,
                stream_problem=self._problem_of(node, name, streams),
                leader_of=None,
            )
            for name, (streams, other) in self.jetstreams.items()
            if other is not api
        ]
        return replace(source, others=tuple(others))

    def _problem_of(self, node: Node, account: str, streams: StreamsApi) -> Callable[[str], str]:
        return lambda stream: stream_problem(node, account, streams.key(stream))

    def client_info(self, client: object) -> dict[str, object]:
        """The ``client`` object of advisories."""
        stats = getattr(client, "stats", None)
        if stats is None:
            return {}
        shown = stats()
        rtt = {"rtt": shown.rtt_ns} if shown.rtt_ns else {}
        kind = {"server": self.server_name, "kind": "Client", "client_type": shown.client_type}
        return client_info(shown) | rtt | kind


def room_limits(options: Options) -> RoomLimits:
    """What streams may hold: only what the configuration says, no default that follows from the machine."""
    accounts = options.jetstream_accounts
    given = options.jetstream
    return RoomLimits(
        accounts={name: limits for name, limits in accounts.items() if limits is not None},
        only=next(iter(accounts)) if len(accounts) == 1 else "",
        max_memory_bytes=given.max_memory_bytes or -1,
        max_storage_bytes=given.max_storage_bytes or -1,
    )


def make_server_id(rng: Random) -> str:
    """56 characters like a server's public nkey: N, then base32."""
    return "N" + base64.b32encode(rng.randbytes(35)).decode("ascii")[:55]


def authenticator(options: Options) -> Authenticator:
    """Who may connect. With only a system account, clients without credentials are let into the global one."""
    if options.operator is not None:
        from server.auth.operator import OperatorAuthenticator  # only where it is wanted: start-up time

        return OperatorAuthenticator(options.operator)
    given, accounts = options.authorization, options.accounts
    users = (*given.users, *accounts.users)
    is_only_system = not (given.is_required or any(user.account != options.system_name for user in accounts.users))
    return configured(
        given,
        users,
        options.no_auth_user,
        ANONYMOUS if users and is_only_system else None,
        maps_names=options.tls is not None and options.tls.verify_and_map,
    )


def advertised_address(options: Options, port: int) -> tuple[str, int]:
    """Host and port that INFO names: those of ``client_advertise``, else where the server listens."""
    if not options.client_advertise:
        return options.host, port
    host, colon, number = options.client_advertise.rpartition(":")
    return (host.removeprefix("[").removesuffix("]"), int(number)) if colon else (number, port)


def net_options(options: Options, write_pause_bytes: int) -> NetOptions:
    """What the options say about client connections."""
    return NetOptions(
        protocol=ProtocolOptions(
            max_payload_bytes=options.max_payload_bytes,
            max_control_line_bytes=options.max_control_line_bytes,
            ping_interval_s=options.ping_interval_ns / 1e9,
            ping_max=options.ping_max,
            headers=not options.no_header_support,
        ),
        max_connections=options.max_connections,
        max_subscriptions=options.max_subscriptions,
        max_sub_tokens=options.max_sub_tokens,
        max_closed_clients=options.max_closed_clients,
        no_fast_producer_stall=options.no_fast_producer_stall,
        max_pending_bytes=options.max_pending_bytes,
        write_pause_bytes=write_pause_bytes,
        write_deadline_s=options.write_deadline_ns / 1e9,
        trace=options.trace,
        trace_verbose=options.trace_verbose,
        trace_headers=options.trace_headers,
        traced_bytes_max=options.traced_bytes_max,
        auth_timeout_s=options.authorization.timeout_ns / 1e9,
    )
