"""Addresses of nodes as people write them: ``nats-route://[user:password@]host:port`` and ``host:port``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

ROUTE_SCHEMES: Final = frozenset(("nats-route", "nats"))


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """Another node's cluster port, and what to say there."""

    host: str
    port: int
    user: str = ""
    password: str = ""


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of ``host:port``, brackets of an IPv6 address taken off; ("", 0) of "". Raises ValueError."""
    if not address:
        return "", 0
    host, colon, number = address.rpartition(":")
    if not colon or not number:
        raise ValueError(f"address {address}: missing port in address")
    if not number.removeprefix("-").isdigit():
        raise ValueError(f'could not parse port "{number}"')
    port = int(number)
    if not -1 <= port <= 65_535:
        raise ValueError(f"port {port} is out of range")
    return host.removeprefix("[").removesuffix("]"), port


def advertised(address: str) -> str:
    """The address as it is, if others can dial it. Raises ValueError."""
    host, port = split_address(address)
    if address and (not host or port <= 0):
        raise ValueError(f"an advertised address should be host:port, not {address}")
    return address


def client_advertised(address: str) -> str:
    """The address as it is, if it is a host or host:port. Raises ValueError."""
    host, _, number = address.rpartition(":") if ":" in address else (address, "", "1")
    if address and (not host or not number.isdigit() or not 0 < int(number) <= 65_535):
        raise ValueError(f"client_advertise should be host or host:port, not {address}")
    return address


def parse_route(text: str) -> RouteOptions:
    """A route from a configuration. Raises ValueError with the text for the user."""
    if "://" not in text:
        raise ValueError(f'error parsing route url ["{text}"]')
    route = _parse(text.strip(), "route url")
    if not route.host or route.port <= 0:
        raise ValueError(f'error parsing route url ["{text}"]: it needs a host and a port')
    return route


def parse_listen(text: str) -> RouteOptions:
    """Where to listen, from a flag: a route's form, or without the scheme; port -1 = any free one."""
    address = _parse(text.strip(), "cluster address")
    if not address.port:
        raise ValueError(f'error parsing cluster address ["{text}"]: it needs a port')
    return address


def _parse(text: str, what: str) -> RouteOptions:
    scheme, separator, rest = text.rpartition("://")
    if scheme == "tls":
        raise ValueError(f"TLS between nodes is not supported by this version of jetstore: {text}")
    if separator and scheme not in ROUTE_SCHEMES:
        raise ValueError(f'error parsing {what} ["{text}"]: the scheme is none of nats-route, nats')
    credentials, _, address = rest.removesuffix("/").rpartition("@")
    user, colon, password = credentials.partition(":")
    if credentials and not (user and colon and password):
        raise ValueError("expected cluster password to be set")
    host, port = split_address(address)
    return RouteOptions(host, port, unquote(user), unquote(password))
