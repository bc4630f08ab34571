"""What the system account hears without asking: clients that come and go, counters, the server's end.

Nothing is made, counted or timed for events that nobody subscribes to: each costs one look-up per connection, and the
timers run only while somebody listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from jetstore.model.json import encode
from jetstore.model.times import format_time
from jetstore.node.ports import InternalSubscription
from jetstore.types import Nanos
from server.net.accounts import Account, Accounts
from server.net.connection import ClientConnection
from server.net.stats import ConnectionStats, client_info
from server.protocol.reasons import CloseReason
from server.route.router import Router

if TYPE_CHECKING:
    from server.monitor.system import SystemPages

JsonDict = dict[str, Any]  # Any: JSON values
STATSZ_FIRST_S: Final = 0.25
"""The first counters come this soon after somebody subscribed; then twice as late each time."""
STATSZ_INTERVAL_S: Final = 10.0
CONNECTIONS_INTERVAL_S: Final = 30.0
"""How often accounts with connections say how many, also if nothing changed."""


class SystemEvents:
    """``server/net``'s ``ConnectionEvents``, and the events of the server itself. ``start`` begins, ``close`` ends."""

    def __init__(
        self,
        server_id: str,
        system: Router,
        accounts: Accounts,
        pages: Callable[[], SystemPages],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """``pages`` is called with the first event that somebody wants."""
        self._own = f"$SYS.SERVER.{server_id}."
        self._system = system
        self._accounts = accounts
        self._pages = pages
        self._loop = loop
        self._watches: list[InternalSubscription] = []
        self._watched: set[bytes] = set()
        self._statsz_timer: asyncio.TimerHandle | None = None
        self._connections_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch who listens."""
        watch = self._system.watch_interest
        self._watches = [watch(f"{self._own}STATSZ".encode(), self._statsz_interest)]
        for account in self._accounts:
            self.add(account)

    def add(self, account: Account) -> None:
        """Somebody may want to know how many connections it has. One that is removed is watched until the end."""
        for subject in _connection_subjects(account):
            if subject not in self._watched:
                self._watched.add(subject)
                self._watches.append(self._system.watch_interest(subject, self._connections_interest))

    def close(self) -> None:
        """Tell that the server ends, and nothing after. Idempotent."""
        if not self._watches:
            return
        self._tell_server("SHUTDOWN")
        for watch in self._watches:
            watch.close()
        self._watches.clear()
        for timer in (self._statsz_timer, self._connections_timer):
            if timer is not None:
                timer.cancel()
        self._statsz_timer = self._connections_timer = None

    def lame_duck(self) -> None:
        """The server begins to send its clients away."""
        self._tell_server("LAMEDUCK")

    def advise(self, subject: str, what: str, fields: JsonDict) -> None:
        """An advisory about this server's JetStream for the system account: ``$JS.EVENT.ADVISORY.<subject>``."""
        full = f"$JS.EVENT.ADVISORY.{subject}".encode()
        if self._system.has_interest(full):
            self._send(full, self._pages().advisory(what, fields))

    # -- server.net.client_server.ConnectionEvents ------------------------------------------------------------------

    def connected(self, connection: ClientConnection) -> None:
        """Its CONNECT was accepted."""
        self._tell_connections(connection.account)
        subject = f"$SYS.ACCOUNT.{connection.account.name}.CONNECT".encode()
        if self._system.has_interest(subject):
            self._send(subject, self._pages().event("client_connect", {"client": _client(connection.stats())}))

    def disconnected(self, connection: ClientConnection, stats: ConnectionStats) -> None:
        """It is gone."""
        if connection.is_admitted:
            self._tell_connections(connection.account)
        subjects = [f"$SYS.ACCOUNT.{connection.account.name}.DISCONNECT".encode()]
        if connection.close_reason is CloseReason.AUTHENTICATION_FAILURE:
            subjects.insert(0, f"{self._own}CLIENT.AUTH.ERR".encode())
        for subject in subjects:
            if self._system.has_interest(subject):
                self._send(subject, self._pages().event("client_disconnect", _goodbye(stats)))

    # -- counters ---------------------------------------------------------------------------------------------------

    def _statsz_interest(self, is_wanted: bool) -> None:
        if is_wanted and self._statsz_timer is None and self._watches:
            self._statsz_timer = self._loop.call_later(STATSZ_FIRST_S, self._tell_statsz, STATSZ_FIRST_S)

    def _tell_statsz(self, delay_s: float) -> None:
        self._statsz_timer = None
        subject = f"{self._own}STATSZ".encode()
        if self._system.has_interest(subject):
            pages = self._pages()
            self._send(subject, {"server": pages.server(), "statsz": pages.statsz()})
            delay_s = min(2 * delay_s, STATSZ_INTERVAL_S)
            self._statsz_timer = self._loop.call_later(delay_s, self._tell_statsz, delay_s)

    def _connections_interest(self, is_wanted: bool) -> None:
        if is_wanted and self._connections_timer is None and self._watches:
            self._connections_timer = self._loop.call_later(CONNECTIONS_INTERVAL_S, self._tell_all_connections)

    def _tell_all_connections(self) -> None:
        self._connections_timer = None
        is_wanted = False
        for account in self._accounts:
            is_wanted |= self._tell_connections(account, also_none=False)
        self._connections_interest(is_wanted)

    def _tell_connections(self, account: Account, *, also_none: bool = True) -> bool:
        """How many connections an account has; whether anybody wants to know."""
        subjects = [subject for subject in _connection_subjects(account) if self._system.has_interest(subject)]
        if subjects and (also_none or account.connections):
            pages = self._pages()
            event = pages.event("account_connections", pages.account_stat(account.name))
            for subject in subjects:
                self._send(subject, event)
        return bool(subjects)

    # -- sending ----------------------------------------------------------------------------------------------------

    def _tell_server(self, what: str) -> None:
        subject = f"{self._own}{what}".encode()
        if self._system.has_interest(subject):
            self._send(subject, self._pages().server())

    def _send(self, subject: bytes, body: JsonDict) -> None:
        self._system.publish([subject], (), [encode(body)])


def _connection_subjects(account: Account) -> tuple[bytes, bytes]:
    """The older subject first, as they are sent."""
    return f"$SYS.SERVER.ACCOUNT.{account.name}.CONNS".encode(), f"$SYS.ACCOUNT.{account.name}.SERVER.CONNS".encode()


def _client(stats: ConnectionStats) -> JsonDict:
    """The ``client`` object."""
    shown = client_info(stats)
    if stats.stop_ns:
        if stats.rtt_ns:
            shown["rtt"] = stats.rtt_ns
        shown["stop"] = format_time(Nanos(stats.stop_ns))
    return shown | {"name_tag": stats.account, "kind": "Client", "client_type": stats.client_type}


def _goodbye(stats: ConnectionStats) -> JsonDict:
    """What was ``sent`` is seen from the client here."""
    return {
        "client": _client(stats),
        "sent": {"msgs": stats.in_msgs, "bytes": stats.in_bytes},
        "received": {"msgs": stats.out_msgs, "bytes": stats.out_bytes},
        "reason": stats.reason,
    }
