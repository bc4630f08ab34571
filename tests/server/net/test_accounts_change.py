"""Accounts that become others while connections subscribe there: what changed is in force, the rest undisturbed."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest

from server.config.accounts import AccountOptions, AccountsOptions, Export, Import, MappingOptions
from server.net.accounts import Accounts
from server.route.router import Router
from server.route.subscription import Subscription

sys.path.append(str(Path(__file__).parents[1] / "route"))
from route_fakes import FakeSink

EXPORTS = (Export("p.>", is_service=False), Export("q", is_service=True))
STREAM, SERVICE = Import("A", "p.>", is_service=False), Import("A", "q", is_service=True)


class World:
    """A with a member who publishes and serves, B with one who subscribes."""

    def __init__(self, *accounts: AccountOptions) -> None:
        self.accounts = Accounts(new_router("$G"), AccountsOptions(accounts), (), "$SYS", new_router)
        self.here, self.there = FakeSink("a"), FakeSink("b")
        self.accounts["A"].router.subscribe_client(self.here, b"q", b"", b"1")
        self.accounts["B"].router.subscribe_client(self.there, b"p.*", b"", b"2")

    def change(self, *accounts: AccountOptions) -> None:
        self.accounts.change(AccountsOptions(accounts), (), "$SYS")

    def told(self, subject: bytes = b"p.1") -> bytes:
        """What B's member gets of what A's says."""
        self.accounts["A"].router.publish_from(self.here, [subject], [b""], (), [b"!"])
        return self.there.take()

    def asked(self) -> bytes:
        """What A's member gets of what B's says."""
        self.accounts["B"].router.publish_from(self.there, [b"q"], [b""], (), [b"?"])
        return self.here.take()

    def subscriptions(self, name: str) -> set[Subscription]:
        return set(self.accounts[name].sublist.all())


def new_router(name: str) -> Router:
    return Router(name, Random(1), lambda call: None)


def a(*exports: Export, **more: object) -> AccountOptions:
    return AccountOptions("A", exports=exports, **more)  # type: ignore[arg-type]


def b(*imports: Import) -> AccountOptions:
    return AccountOptions("B", imports=imports)


def test_imports_come_and_go_for_subscriptions_that_are_there() -> None:
    world = World(a(*EXPORTS), b())
    assert world.told() == world.asked() == b""
    world.change(a(*EXPORTS), b(STREAM, SERVICE))
    assert world.told() == b"MSG p.1 2 1\r\n!\r\n"
    assert world.asked().endswith(b"?\r\n")
    world.change(a(*EXPORTS), b(SERVICE))
    assert world.told() == b""
    assert world.asked() != b""
    world.change(a(*EXPORTS), b())
    assert world.told() == world.asked() == b""
    assert len(world.subscriptions("B")) == 1


def test_what_did_not_change_is_not_touched() -> None:
    world = World(a(*EXPORTS), b(STREAM, SERVICE))
    before = [world.subscriptions(name) for name in "AB"]
    world.change(a(*EXPORTS, Export("z", is_service=False), max_connections=7), b(STREAM, SERVICE))
    assert [world.subscriptions(name) for name in "AB"] == before
    assert world.accounts["A"].max_connections == 7
    slow = Export("q", is_service=True, threshold_ns=10**9)
    world.change(a(EXPORTS[0], slow), b(STREAM, SERVICE))
    assert [world.subscriptions(name) for name in "AB"] != before
    assert world.told() == b"MSG p.1 2 1\r\n!\r\n"


def test_mappings_change_and_go() -> None:
    world = World(a(*EXPORTS), b(STREAM))
    router = world.accounts["A"].router
    world.change(a(*EXPORTS, mappings=(MappingOptions("m", (("p.2", 100),)),)), b(STREAM))
    assert world.told(b"m") == b"MSG p.2 2 1\r\n!\r\n"
    kept = router.mappings
    world.change(a(*EXPORTS, mappings=(MappingOptions("m", (("p.2", 100),)),)), b(STREAM))
    assert router.mappings is kept
    world.change(a(*EXPORTS), b(STREAM))
    assert router.mappings is None
    assert world.told(b"m") == b""


def test_mappings_of_a_domain_stay() -> None:
    world = World(a(*EXPORTS), b(STREAM))
    account = world.accounts["A"]
    account.use_domain("d")
    world.change(a(*EXPORTS, mappings=(MappingOptions("m", (("p.2", 100),)),)), b(STREAM))
    assert world.told(b"m") != b""
    world.change(a(*EXPORTS), b(STREAM))
    api = FakeSink("api")
    account.router.subscribe_client(api, b"$JS.API.INFO", b"", b"9")
    account.router.publish_from(world.here, [b"$JS.d.API.INFO"], [b""], (), [b""])
    assert api.take().startswith(b"MSG $JS.API.INFO 9")


@pytest.mark.parametrize("moved", ["A", "B"])
def test_an_account_moves_to_another_router_and_keeps_its_subscriptions(moved: str) -> None:
    world = World(a(*EXPORTS), b(STREAM, SERVICE))
    old, to = world.accounts[moved].router, new_router(moved)
    world.accounts[moved].move(to)
    world.change(a(*EXPORTS), b(STREAM, SERVICE))
    assert world.told() == b"MSG p.1 2 1\r\n!\r\n"
    assert world.asked() != b""
    assert not [each for each in old.sublist.all() if each.sink is not None]
    to.drop_client(world.here if moved == "A" else world.there)
    assert not [each for each in to.sublist.all() if each.sink is not None and each.shadow is None]


def test_an_account_comes_and_goes() -> None:
    world = World(a(*EXPORTS), b())
    world.accounts.put(AccountOptions("C"), new_router("C"), "")
    world.change(a(*EXPORTS), b(), AccountOptions("C", imports=(STREAM,)))
    client = FakeSink("c")
    world.accounts["C"].router.subscribe_client(client, b">", b"", b"3")
    world.told()
    assert client.take() == b"MSG p.1 3 1\r\n!\r\n"
    world.accounts.drop("C")
    world.change(a(*EXPORTS), b())
    world.told()
    assert client.take() == b""
    assert world.accounts.get("C") is None
