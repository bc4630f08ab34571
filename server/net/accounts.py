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
from server.route.sublist import Sublist

_API_IN_DOMAIN = ("INFO", "STREAM.>", "CONSUMER.>", "DIRECT.>", "META.>", "SERVER.>", "ACCOUNT.>")
_IN_DOMAIN = [*((name, f"$JS.API.{name}") for name in _API_IN_DOMAIN), ("$KV.>", "$KV.>"), ("$OBJ.>", "$OBJ.>")]
"""Subjects behind ``$JS.<domain>.API.`` and what they mean."""


class Account:
    """One account: who is in it sees what others in it publish, and nobody else does unless it is exported."""

    __slots__ = (
        *("closed", "connections", "is_system", "max_connections", "max_payload_bytes", "max_subscriptions"),
        *("name", "options", "router"),
    )

    def __init__(self, options: AccountOptions, router: Router, *, is_system: bool = False) -> None:
        self.name = options.name
        self.options = options
        self.router = router
        router.trace_dest, router.trace_sampling = options.trace_dest.encode(), options.trace_sampling
        self.is_system = is_system
        self.max_connections = options.max_connections
        """-1 = no limit, as with the others."""
        self.max_subscriptions = options.max_subscriptions
        self.max_payload_bytes = options.max_payload_bytes
        self.connections = 0
        self.closed = Totals()
        """What its closed connections sent and got, and how many of them were slow consumers."""

    @property
    def sublist(self) -> Sublist:
        """Its subscriptions."""
        return self.router.sublist

    def use_domain(self, domain: str) -> None:
        """Its streams are in a JetStream domain ("" = in none): the API has a second name, which clients may use."""
        if domain:
            self.router.domain = domain
            api = [MappingOptions(f"$JS.{domain}.API.{there}", ((here, PERCENT),)) for there, here in _IN_DOMAIN]
            self.router.mappings = _mappings((*self.options.mappings, *api), self.router.rng)

    @property
    def is_full(self) -> bool:
        """Whether it takes no more connections."""
        return 0 <= self.max_connections <= self.connections


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
        given = [AccountOptions(GLOBAL_ACCOUNT, mappings=tuple(mappings)), *options.accounts]
        if new_router is not None and system_account not in {each.name for each in given}:
            given.append(AccountOptions(system_account))
        self._by_name: dict[str, Account] = {}
        for each in given:
            if each.name == GLOBAL_ACCOUNT:
                router = global_router
            else:
                assert new_router is not None
                router = new_router(each.name)
            self._by_name[each.name] = Account(each, router, is_system=each.name == system_account)
            if each.mappings:
                router.mappings = _mappings(each.mappings, router.rng)
        for each in options.accounts:
            for wanted in each.imports:
                self._share(options, each.name, wanted)

    def __getitem__(self, name: str) -> Account:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Account | None:
        """The account of this name, if there is one."""
        return self._by_name.get(name)

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


def _mappings(options: Sequence[MappingOptions], rng: Random) -> Mappings:
    return Mappings([(each.source, Mapping(each.source, each.destinations, rng)) for each in options])
