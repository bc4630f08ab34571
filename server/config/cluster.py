"""The ``cluster`` block: the other nodes and how they reach this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.config.authorization import CREDENTIALS
from server.config.routes import RouteOptions, advertised, parse_route, split_address
from server.config.tree import Entry, kind_of
from server.config.values import (
    SECOND,
    Fields,
    Mistake,
    Reader,
    Table,
    address,
    as_map,
    name_without_spaces,
    port,
    seconds,
    text,
    wrong_type,
)


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The ``cluster`` block without its name."""

    host: str = "0.0.0.0"
    port: int = 0
    """0 = no cluster port: the server is alone."""
    routes: tuple[RouteOptions, ...] = ()
    """The other nodes; the server's own address among them does no harm."""
    advertise: str = ""
    """host:port that others reach this node at; "" = what it listens on."""
    user: str = ""
    password: str = ""
    """Asked of nodes that connect; both "" = nothing is asked."""
    timeout_ns: int = 2 * SECOND
    """How long a node that connects may take to say who it is."""

    @property
    def others(self) -> tuple[RouteOptions, ...]:
        """Routes that do not obviously lead back here."""
        own = {(self.host, self.port), split_address(self.advertise)}
        return tuple({(r.host, r.port): r for r in self.routes if (r.host, r.port) not in own}.values())


def _cluster(reader: Reader, name: str, entry: Entry) -> Fields:
    fields = reader.block(as_map(name, entry), _CLUSTER, REFUSED)
    named = {key: fields.pop(key) for key in ("cluster_name",) if key in fields}
    return {**named, "cluster": ClusterOptions(**fields)}


def _authorization(reader: Reader, name: str, entry: Entry) -> Fields:
    block = as_map(name, entry)
    keys = {key.lower() for key in block}
    if "token" in keys:
        raise Mistake("Cluster authorization does not support tokens")
    if "users" in keys:
        raise Mistake("Cluster authorization does not allow multiple users")
    return reader.block(block, _AUTHORIZATION, _AUTHORIZATION_REFUSED)


def _routes(reader: Reader, name: str, entry: Entry) -> Fields:
    if not isinstance(entry.value, list):
        raise wrong_type(name, entry, "an array of URLs")
    routes = []
    for item in entry.value:
        if not isinstance(item.value, str):
            reader.complain(item, f"a route should be a URL, not {kind_of(item.value)}")
            continue
        try:
            routes.append(parse_route(item.value))
        except ValueError as error:
            reader.complain(item, str(error))
    return {"routes": tuple(routes)}


def _advertise(_reader: Reader, name: str, entry: Entry) -> Fields:
    if not isinstance(entry.value, str):
        raise wrong_type(name, entry, "a host:port")
    try:
        return {"advertise": advertised(entry.value)}
    except ValueError as error:
        raise Mistake(str(error)) from None


_AUTHORIZATION: Final[Table] = {**CREDENTIALS, "timeout": seconds("timeout_ns")}
_AUTHORIZATION_REFUSED: Final = frozenset(
    ("default_permissions", "default_permission", "permissions", "auth_callout", "auth_hook", "proxy_required")
)
_CLUSTER: Final[Table] = {
    "name": name_without_spaces("cluster_name", "cluster"),
    "listen": address("host", "port"),
    "host": text("host"),
    "net": text("host"),
    "port": port("port"),
    "routes": _routes,
    "authorization": _authorization,
    "advertise": _advertise,
    "cluster_advertise": _advertise,
}
REFUSED: Final = frozenset(
    (
        *("tls", "no_advertise", "connect_retries", "connect_backoff", "permissions", "pool_size", "accounts"),
        *("compression", "ping_interval", "ping_max", "write_deadline", "write_timeout"),
    )
)
TOP_LEVEL: Final[Table] = {"cluster": _cluster}
