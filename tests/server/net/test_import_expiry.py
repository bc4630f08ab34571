"""Imports that came with an activation token end with it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from net_fakes import FakeLoop

from server.config.accounts import AccountOptions, AccountsOptions, Export, Import
from server.config.activations import Activation, Activators
from server.net.accounts import Accounts
from server.route.router import Router

NOW_S = 1000.0


def imported(expires_s: int, not_before_s: int = 0) -> tuple[Accounts, list[tuple[float, Callable[[], None]]]]:
    """Accounts of which B imports a service and a stream of A with a token, and the timers that were set for it."""
    activators, token = Activators("A", ("A",)), Activation("A", "", 1, expires_s, not_before_s)
    exports = tuple(Export(subject, subject == "ask", activators=activators) for subject in ("ask", "news"))
    imports = tuple(Import("A", subject, subject == "ask", activation=token) for subject in ("ask", "news"))
    options = AccountsOptions((AccountOptions("A", exports=exports), AccountOptions("B", imports=imports)))
    timers: list[tuple[float, Callable[[], None]]] = []

    def router(name: str) -> Router:
        return Router(name, Random(1), FakeLoop().call_soon)

    accounts = Accounts(
        router("$G"),
        options,
        new_router=router,
        now_s=lambda: NOW_S,
        call_later=lambda delay_s, end: timers.append((delay_s, end)),
    )
    return accounts, timers


def shared(accounts: Accounts) -> tuple[int, int]:
    """What B imports: services, streams."""
    return len(accounts["B"].router.sublist), len(accounts["B"].router.stream_imports)


def test_they_end_with_the_token() -> None:
    accounts, timers = imported(1010)
    assert shared(accounts) == (1, 1)
    assert [delay_s for delay_s, _ in timers] == [10.0, 10.0]
    for _, end in timers:
        end()
    assert shared(accounts) == (0, 0)


def test_they_do_not_begin_without_a_valid_one() -> None:
    assert shared(imported(1000)[0]) == (0, 0)
    assert shared(imported(0, 1001)[0]) == (0, 0)
    accounts, timers = imported(0)
    assert shared(accounts) == (1, 1)
    assert timers == []
