"""Changes of what an account imports, and of the router it has, while connections subscribe there."""

from __future__ import annotations

from server.route.imports import ServiceImport, StreamImport
from server.route.router import Router
from server.route.subscription import Subscription


def import_nothing(home: Router) -> None:
    """End all imports of an account. Requests that other accounts have got are still answered."""
    for subscription in list(home.sublist.all()):
        if isinstance(subscription.bridge, ServiceImport):
            home.unsubscribe(subscription)
    for stream in home.stream_imports:
        home.end_stream_import(stream)


def follow(home: Router, stream: StreamImport) -> None:
    """Subscriptions that were there before a stream import get its messages, too."""
    for subscription in own_of_clients(home):
        shadow = stream.shadow_of(subscription, home)
        if shadow is not None:
            subscription.shadows.append(shadow)
            stream.source.add(shadow)


def move_clients(home: Router, to: Router) -> None:
    """Subscriptions of connections go to another router of the account, which imports nothing yet."""
    import_nothing(home)
    for subscription in own_of_clients(home):
        home.take_out(subscription)
        to.add(subscription)


def own_of_clients(home: Router) -> list[Subscription]:
    """Subscriptions of connections in this account, in the order they were made."""
    found = [each for each in home.sublist.all() if each.sink is not None and each.shadow is None]
    return sorted(found, key=lambda each: each.order)
