"""The accounts of one server: a router for each, what they share, and what they may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random

from server.config.accounts import (
    RESPONSE_WAIT_NS,
    SYSTEM_ACCOUNT,
    AccountOptions,
    AccountsOptions,
    Export,
    Import,
    MappingOptions,
    export_for,
)
from server.config.authorization import GLOBAL_ACCOUNT
from server.net.stats import Totals
from server.route.imports import AnswerRule, ServiceImport, StreamImport
from server.route.latency import LatencyRule
from server.route.mappings import PERCENT, Mapping, Mappings
from server.route.router import Router
from server.route.sharing import follow, import_nothing, move_clients
from server.route.sublist import Sublist

_API_IN_DOMAIN = ("INFO", "STREAM.>", "CONSUMER.>", "DIRECT.>", "META.>", "SERVER.>", "ACCOUNT.>")
_IN_DOMAIN = [*((name, f"$JS.API.{name}") for name in _API_IN_DOMAIN), ("$KV.>", "$KV.>"), ("$OBJ.>", "$OBJ.>")]
"""Subjects behind ``$JS.<domain>.API.`` and what they mean."""

_Shared = list[tuple[Router, Import, Export | None, Router]]
"""What an account imports, where, the export that lets it, and the exporter's router."""


class Account:
    """One account: who is in it sees what others in it publish, and nobody else does unless it is exported."""

    __slots__ = (
        *("closed", "connections", "is_system", "max_connections", "max_payload_bytes", "max_subscriptions"),
        *("_domain", "name", "options", "router"),
    )

    def __init__(self, options: AccountOptions, router: Router, *, is_system: bool = False) -> None:
        self.name = options.name
        self.router = router
        self.is_system = is_system
        self._domain = ""
        self.connections = 0
        self.closed = Totals()
        """What its closed connections sent and got, and how many of them were slow consumers."""
        self.options = options
        self.max_connections = -1
        """-1 = no limit, as with the others."""
        self.max_subscriptions = -1
        self.max_payload_bytes = -1
        self.change(options)

    @property
    def sublist(self) -> Sublist:
        """Its subscriptions."""
        return self.router.sublist

    def use_domain(self, domain: str) -> None:
        """Its streams are in a JetStream domain ("" = in none): the API has a second name, which clients may use."""
        if domain:
            self.router.domain = self._domain = domain
            self._map()

    def change(self, options: AccountOptions) -> None:
        """From now on it is this, but for what it imports."""
        before, self.options = self.options, options
        self.max_connections = options.max_connections
        self.max_subscriptions = options.max_subscriptions
        self.max_payload_bytes = options.max_payload_bytes
        router = self.router
        router.trace_dest, router.trace_sampling = options.trace_dest.encode(), options.trace_sampling
        if router.mappings is None or before.mappings != options.mappings:
            self._map()

    def move(self, to: Router) -> None:
        """Another router stands for it: connections go there, and nothing is imported yet."""
        move_clients(self.router, to)
        to.domain, to.mappings = self.router.domain, self.router.mappings
        to.trace_dest, to.trace_sampling = self.router.trace_dest, self.router.trace_sampling
        self.router = to

    def _map(self) -> None:
        domain, mappings = self._domain, self.options.mappings
        if domain:
            api = [MappingOptions(f"$JS.{domain}.API.{there}", ((here, PERCENT),)) for there, here in _IN_DOMAIN]
            mappings = (*mappings, *api)
        self.router.mappings = _mappings(mappings, self.router.rng) if mappings else None

    @property
    def is_full(self) -> bool:
        """Whether it takes no more connections."""
        return 0 <= self.max_connections <= self.connections

    @property
    def is_overfull(self) -> bool:
        """Whether it has more connections than it may: the limit was higher once."""
        return 0 <= self.max_connections < self.connections


class Accounts:
    """By name. The global account is always there; so is the system account."""

    def __init__(
        self,
        global_router: Router,
        options: AccountsOptions | None = None,
        mappings: Sequence[MappingOptions] = (),
        system_account: str = SYSTEM_ACCOUNT,
        new_router: Callable[[str], Router] | None = None,
        now_s: Callable[[], float] = lambda: 0.0,
        call_later: Callable[[float, Callable[[], None]], object] = lambda delay_s, callback: None,
    ) -> None:
        """``new_router`` makes the router of an account by name. The options' sharing has been checked.

        ``now_s`` is wall time, ``call_later`` the event loop's: imports end with their activation tokens.
        """
        self._now_s = now_s
        self._call_later = call_later
        options = options or AccountsOptions()
        self._by_name: dict[str, Account] = {}
        self._shared: dict[str, _Shared] = {}
        """By importing account: what is in force."""
        for each in all_accounts(options, mappings, system_account if new_router is not None else GLOBAL_ACCOUNT):
            if each.name == GLOBAL_ACCOUNT:
                router = global_router
            else:
                assert new_router is not None
                router = new_router(each.name)
            self._by_name[each.name] = Account(each, router, is_system=each.name == system_account)
        for each in options.accounts:
            self._share_all(options, each)

    def __getitem__(self, name: str) -> Account:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Account | None:
        """The account of this name, if there is one."""
        return self._by_name.get(name)

    # -- change -----------------------------------------------------------------------------------------------------

    def put(self, options: AccountOptions, router: Router, domain: str) -> Account:
        """One more account; it imports nothing before ``change``."""
        account = self._by_name[options.name] = Account(options, router)
        account.use_domain(domain)
        return account

    def drop(self, name: str) -> Account:
        """It is an account no more; its connections are gone."""
        account = self._by_name.pop(name)
        import_nothing(account.router)
        self._shared.pop(name, None)
        return account

    def change(self, options: AccountsOptions, mappings: Sequence[MappingOptions], system_account: str) -> None:
        """From now on the accounts, all of which there are, are these. What did not change goes on undisturbed."""
        for each in all_accounts(options, mappings, system_account):
            self._by_name[each.name].change(each)
            wanted = self._sharing(options, each)
            if self._shared.get(each.name, []) != wanted:
                import_nothing(self._by_name[each.name].router)
                self._share_all(options, each)

    def _sharing(self, options: AccountsOptions, importer: AccountOptions) -> _Shared:
        home = self._by_name[importer.name].router
        return [
            (home, wanted, export_for(options, importer.name, wanted), self._by_name[wanted.account].router)
            for wanted in importer.imports
        ]

    def _share_all(self, options: AccountsOptions, importer: AccountOptions) -> None:
        home = self._by_name[importer.name].router
        self._shared[importer.name] = self._sharing(options, importer)
        for wanted in importer.imports:
            self._share(options, importer.name, wanted)
        for stream in home.stream_imports:
            follow(home, stream)

    def _share(self, options: AccountsOptions, importer: str, wanted: Import) -> None:
        home, source = self._by_name[importer].router, self._by_name[wanted.account].router
        export = export_for(options, importer, wanted)
        assert export is not None
        token = wanted.activation if export.activators is not None and not export.account_position else None
        now_s = self._now_s()
        if token is not None and not token.is_valid_at(now_s):
            return
        if wanted.is_service:
            end = self._import_service(home, source, wanted, export)
        else:
            stream = StreamImport(source, wanted.subject, wanted.local, allows_trace=wanted.allows_trace)
            home.stream_imports.append(stream)
            end = partial(home.end_stream_import, stream)
        if token is not None and token.expires_s:
            self._call_later(token.expires_s - now_s, end)

    def _import_service(self, home: Router, source: Router, wanted: Import, export: Export) -> Callable[[], None]:
        """What ends it."""
        measured = export.latency
        latency = LatencyRule(measured.subject.encode(), measured.sampling) if measured is not None else None
        rule = AnswerRule(export.is_single, (export.threshold_ns or RESPONSE_WAIT_NS) / 1e9)
        imported = home.import_service(
            ServiceImport(
                source,
                wanted.subject,
                wanted.local,
                rule,
                is_shared=wanted.is_shared,
                allows_trace=export.allows_trace,
                latency=latency,
            )
        )
        return partial(home.unsubscribe, imported)


def all_accounts(
    options: AccountsOptions, mappings: Sequence[MappingOptions], system_account: str
) -> list[AccountOptions]:
    """The accounts of a configuration, with those that are always there. ``mappings`` are the global account's."""
    given = [AccountOptions(GLOBAL_ACCOUNT, mappings=tuple(mappings)), *options.accounts]
    if system_account not in {each.name for each in given}:
        given.append(AccountOptions(system_account))
    return given


def _mappings(options: Sequence[MappingOptions], rng: Random) -> Mappings:
    return Mappings([(each.source, Mapping(each.source, each.destinations, rng)) for each in options])
