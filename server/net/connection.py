"""One client connection: the glue between a transport, the protocol machine and the router.

Output is collected (``send``) and leaves in one write when the read that caused it has been handled, or, if no read
caused it, once per turn of the event loop. It also is the router's ``Sink``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import structlog

from server.auth.authenticator import ANONYMOUS, STANDARD, SlowCheck, User
from server.auth.permissions import Responses
from server.net.stats import ConnectionStats, request_info, stats_of
from server.net.trace import WireTrace
from server.protocol import reasons
from server.protocol.client import ClientProtocol, Denied, Later, State
from server.protocol.connect import ConnectOptions, completed
from server.protocol.events import Closing, Connected, Event, Publishes, Subscribe, Unsubscribe
from server.protocol.info import info_line
from server.protocol.lines import is_valid_subject
from server.protocol.reasons import CloseReason
from server.route.router import Router
from server.route.subscription import Answers, Permits, Subscription
from server.route.tracing import MessageTrace, trace_oversized

if TYPE_CHECKING:
    from server.net.accounts import Account
    from server.net.client_server import ClientServer

log = structlog.get_logger("clients")

STALL_S = 0.01
"""How long a producer is not read when a consumer of its messages is congested."""
_RESERVED_QUEUE = b"_sys_"
_WARNED = {
    CloseReason.SLOW_CONSUMER_PENDING_BYTES: "slow consumer",
    CloseReason.SLOW_CONSUMER_WRITE_DEADLINE: "slow consumer",
    CloseReason.AUTHENTICATION_FAILURE: "authentication failed",
    CloseReason.AUTHENTICATION_TIMEOUT: "authentication failed",
    CloseReason.MAXIMUM_CONNECTIONS_EXCEEDED: "too many connections",
}
"""Ends that an operator should hear of; the others are the daily business of clients."""


class ClientConnection(asyncio.Protocol):
    """See the module's docstring. Made for each accepted transport; the simulator hands in its own."""

    def __init__(self, server: ClientServer, connection_type: str = STANDARD) -> None:
        self.server = server
        self.connection_type = connection_type
        self.cid = 0
        self.ip = ""
        self.port = 0
        self.user: User = ANONYMOUS
        self.account: Account = server.accounts[ANONYMOUS.account]
        self.router: Router = server.router
        """Of the account."""
        self.echo = True
        self.headers = False
        self.no_responders = False
        self.verbose = True
        self.permits: Permits | None = None
        self.responses: Answers | None = None
        self.trace: MessageTrace | None = None
        self.credentials: Mapping[str, str] = {}
        """What a CONNECT may leave out."""
        self.is_closed = False
        self.subscriptions: dict[bytes, Subscription] = {}
        self.in_msgs = self.in_bytes = self.out_msgs = self.out_bytes = self.stalls = 0
        self.transport: asyncio.Transport | None = None
        self.protocol: ClientProtocol | None = None
        self.close_reason: CloseReason | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._is_dirty = False
        self._unsent_bytes = 0
        """What the transport held after the last write: never less than what it holds now."""
        self._written_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._waiting: list[Callable[[], None]] = []
        self._trace_in: WireTrace | None = None
        self._trace_out: WireTrace | None = None
        self.start_ns = 0
        self.start_s = 0.0
        self.connect_rtt_ns = 0
        """From INFO to CONNECT, until a PING has been answered."""
        self._names: tuple[str, ...] = ()
        """In the client's certificate."""
        self._is_counted = False
        """Whether the account counts this connection."""
        self.is_admitted = False
        """Whether its CONNECT was accepted."""
        self._nonce = ""
        """What a client with a key must sign."""

    # -- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server, options = self.server, self.server.options
        transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self.transport = transport
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.ip, self.port = str(peer[0]), int(peer[1])
        high = options.write_pause_bytes - 1
        transport.set_write_buffer_limits(high=high, low=high)
        self.start_s = server.loop.time()
        self.start_ns = server.clock.wall_ns()
        fallback = server.authenticator.fallback
        if fallback is not None:
            self._become(fallback)
        if server.authenticator.needs_nonce:
            self._nonce = server.new_nonce()
        self.protocol = ClientProtocol(options.protocol, self.send, self._authenticate, self._info_line, self.start_s)
        is_full = not server.register(self)
        if options.trace:
            self._trace_in, self._trace_out = (
                WireTrace(
                    arrow,
                    self._traced,
                    payload_max=options.traced_bytes_max,
                    is_headers_only=options.trace_headers,
                )
                for arrow in ("<<-", "->>")
            )
        self.send(self._info_line(False))
        if is_full:
            self._end(
                self.protocol.fail(reasons.MAXIMUM_CONNECTIONS_EXCEEDED, CloseReason.MAXIMUM_CONNECTIONS_EXCEEDED)
            )
            return
        if options.protocol.auth_required:
            self._timers["auth"] = server.loop.call_later(options.auth_timeout_s, self._auth_timer_fired)
        delay_s = self.protocol.keepalive.first_delay_s(server.rng.random())
        self._timers["ping"] = server.loop.call_later(delay_s, self._ping_timer_fired)
        server.flush()

    def data_received(self, data: bytes) -> None:
        protocol, server = self.protocol, self.server
        if self.is_closed or protocol is None:
            return
        if self._trace_in is not None:
            self._trace_in.feed(data)
        protocol.receive(data, server.loop.time())
        server.reading += 1
        try:
            while (event := protocol.next_event()) is not None:
                self._handle(event)
        finally:
            server.reading -= 1
            server.flush()

    def tls_established(self, names: tuple[str, ...]) -> None:
        """The client's certificate has these names (none: it has none)."""
        self._names = names

    def tls_failed(self, problem: str) -> None:
        """The TLS handshake came to nothing."""
        log.error(f"{self.ip}:{self.port} - cid:{self.cid} - {problem}")
        self._abort(CloseReason.TLS_HANDSHAKE_FAILURE)

    def eof_received(self) -> bool | None:
        self.close(CloseReason.CLIENT_CLOSED)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.close_reason = self.close_reason or (
                CloseReason.CLIENT_CLOSED if exc is None else CloseReason.READ_ERROR
            )
            self.router.drop_client(self)
        self._out.clear()
        self._out_bytes = 0
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._release_waiting()
        self._leave_account()
        self.server.unregister(self)

    def pause_writing(self) -> None:
        """Nothing to do: what waits for room asks for ``pending_bytes``."""

    def resume_writing(self) -> None:
        self._release_waiting()

    # -- events -----------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        server, protocol = self.server, self.protocol
        assert protocol is not None
        if isinstance(event, Publishes):
            self.in_msgs += len(event.payloads)
            self.in_bytes += sum(map(len, event.payloads))
            if self.router.publish_from(self, *event) and not server.options.no_fast_producer_stall:
                self._stall()
        elif isinstance(event, Subscribe):
            self._subscribe(event, protocol)
        elif isinstance(event, Unsubscribe):
            subscription = self.subscriptions.get(event.sid)
            if subscription is not None:
                self.router.limit(subscription, event.max_messages)
            protocol.accept()
        elif isinstance(event, Connected):
            self.router.drop_client(self)
            if isinstance(event.user, User):
                self._become(event.user)
            self.echo = event.options.echo
            self.headers = protocol.headers
            self.no_responders = protocol.no_responders
            self.verbose = event.options.verbose
            timer = self._timers.pop("auth", None)
            if timer is not None:
                timer.cancel()
            if not self.is_admitted:
                self.is_admitted = True
                if server.events is not None:
                    server.events.connected(self)
        else:
            if event.oversized is not None:
                trace_oversized(self.router, self, *event.oversized)
            self._end(event)

    def _subscribe(self, event: Subscribe, protocol: ClientProtocol) -> None:
        options = self.server.options
        subject, queue, sid = event
        if queue == _RESERVED_QUEUE or (self.permits is not None and not self.permits.may_subscribe(subject, queue)):
            protocol.refuse(reasons.subscription_violation(subject, queue))
            return
        if options.max_sub_tokens and subject.count(b".") >= options.max_sub_tokens:
            protocol.refuse(reasons.too_many_tokens(subject))
            return
        if 0 <= self._subscriptions_max() <= len(self.subscriptions):
            protocol.refuse(reasons.MAXIMUM_SUBSCRIPTIONS_EXCEEDED)
            return
        if sid not in self.subscriptions:
            if not is_valid_subject(subject):
                protocol.refuse(reasons.INVALID_SUBJECT)
                return
            self.router.subscribe_client(self, subject, queue, sid)
        protocol.accept()

    def _subscriptions_max(self) -> int:
        """-1 = no limit."""
        options = self.server.options
        given = (options.max_subscriptions or -1, self.account.max_subscriptions, self.user.max_subscriptions)
        return min((limit for limit in given if limit >= 0), default=-1)

    def _authenticate(self, connect: ConnectOptions) -> User | Later | Denied | None:
        self.connect_rtt_ns = self.connect_rtt_ns or max(self.server.clock.wall_ns() - self.start_ns, 1)
        found = self._user_of(connect)
        if not isinstance(found, SlowCheck):
            return self._admitted(found)
        if self.transport is not None:
            self.transport.pause_reading()
        self.server.check_elsewhere(found, self._checked)
        return Later.LATER

    def _user_of(self, connect: ConnectOptions) -> User | SlowCheck | None:
        return self.server.authenticator.authenticate(
            completed(connect, self.credentials),
            self._nonce,
            self.connection_type,
            self._names,
            self.ip,
            self.server.clock.wall_ns(),
        )

    def _checked(self, user: User | None) -> None:
        """A password was compared elsewhere: go on with what the client has sent meanwhile."""
        if self.is_closed or self.protocol is None or self.transport is None:
            return
        event = self.protocol.authenticated(self._admitted(user))
        self.server.reading += 1
        try:
            while event is not None:
                self._handle(event)
                event = self.protocol.next_event()
        finally:
            self.server.reading -= 1
            self.server.flush()
        if not self.is_closed and "stall" not in self._timers and not self.protocol.is_verifying:
            self.transport.resume_reading()

    def authorize_again(self) -> None:
        """The users changed: end the connection if it is no longer let in, else what it may no longer have."""
        protocol = self.protocol
        if self.is_closed or protocol is None or protocol.state is State.AWAITING_CONNECT:
            return  # its CONNECT will be checked against the new ones
        if protocol.is_verifying:
            self.close(CloseReason.AUTHENTICATION_FAILURE, reasons.AUTHORIZATION_VIOLATION)
            return
        connect = completed(protocol.connect, self.credentials)
        if not self.server.authenticator.knows(connect):
            self.close(CloseReason.CLIENT_CLOSED)
            return
        found = self._user_of(protocol.connect)
        if isinstance(found, SlowCheck):
            self.server.check_elsewhere(found, self._authorized)
        else:
            self._authorized(found)

    def _authorized(self, user: User | None) -> None:
        if self.is_closed:
            return
        if user is None:
            self.close(CloseReason.AUTHENTICATION_FAILURE, reasons.AUTHORIZATION_VIOLATION)
            return
        if user.account != self.user.account:
            self.close(CloseReason.CLIENT_CLOSED)
            return
        self._become(user)
        limit = self._subscriptions_max()
        if 0 <= limit <= len(self.subscriptions):
            self.send(reasons.error_line(reasons.MAXIMUM_SUBSCRIPTIONS_EXCEEDED))
        if self.permits is None:
            return
        for subscription in list(self.subscriptions.values()):
            subject, sid = subscription.subject, subscription.sid
            if not self.permits.may_subscribe(subject, subscription.queue):
                self.router.unsubscribe(subscription)
                shown = f'sub "{subject.decode("utf-8", "replace")}" (sid "{sid.decode("utf-8", "replace")}")'
                log.info(f'Removed {shown} for User "{user.name}" - not authorized')
                violation = reasons.subscription_violation(subject, subscription.queue)
                self.send(reasons.error_line(violation + b' (sid "%b")' % sid))

    def _admitted(self, user: User | None) -> User | Denied | None:
        """The user, if there is room in the account."""
        account = self.server.accounts.get(user.account) if user is not None else None
        if account is None:
            return None
        if account is not self.account and account.is_full:
            reason = CloseReason.MAXIMUM_ACCOUNT_CONNECTIONS_EXCEEDED
            return Denied(reasons.MAXIMUM_ACCOUNT_CONNECTIONS_EXCEEDED, reason)
        return user

    def _become(self, user: User) -> None:
        self._leave_account()
        self.user = user
        self.account = self.server.accounts[user.account]
        self.router = self.account.router
        self.account.connections += 1
        self._is_counted = True
        self.limit_payload()
        self._arm_expiry(user)
        self.permits = permissions = user.permissions
        rule = permissions.responses if permissions is not None else None
        self.responses = Responses(rule, self.server.loop.time) if rule is not None else None

    def limit_payload(self) -> None:
        """Messages may be as large as server, account and user let them be."""
        given = (self.account.max_payload_bytes, self.user.max_payload_bytes)
        limit = min((each for each in given if each >= 0), default=-1)
        if self.protocol is not None:
            self.protocol.limit_payload(limit)

    def is_in(self, account: Account) -> bool:
        """Whether this is one of the account's open connections."""
        return self._is_counted and self.account is account and not self.is_closed

    def _arm_expiry(self, user: User) -> None:
        """Claims end at a time: whoever was let in by them goes then."""
        timer = self._timers.pop("expiry", None)
        if timer is not None:
            timer.cancel()
        text = reasons.USER_AUTHENTICATION_EXPIRED
        until_s = user.user_expires_s
        if user.account_expires_s and not 0 < until_s <= user.account_expires_s:
            until_s, text = user.account_expires_s, reasons.ACCOUNT_AUTHENTICATION_EXPIRED
        if until_s:
            wait_s = max(until_s - self.server.clock.wall_ns() / 1e9, 0)
            reason = CloseReason.AUTHENTICATION_EXPIRED
            self._timers["expiry"] = self.server.loop.call_later(wait_s, self.close, reason, text)

    def _info_line(self, is_second: bool, *, is_lame_duck: bool = False) -> bytes:
        account, info = self.account, self.server.info
        if is_lame_duck:
            info = replace(info, lame_duck=True)
        if not is_second:
            return info_line(info, self.cid, self.ip, nonce=self._nonce)
        limit = account.max_payload_bytes
        return info_line(
            info,
            self.cid,
            self.ip,
            nonce=self._nonce,
            remote_account=account.name,
            is_system_account=account.is_system,
            max_payload=min(limit, info.max_payload) if limit >= 0 else 0,
        )

    def _leave_account(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self.account.connections -= 1

    def send_info(self) -> None:
        """Tell the client that something in INFO changed, if it is one that listens."""
        protocol = self.protocol
        if protocol is not None and protocol.first_pong_sent and protocol.connect.protocol >= 1:
            self.send(self._info_line(True))

    def send_lame_duck(self) -> bool:
        """Tell this client that it should go elsewhere; False: it is none that listens."""
        protocol = self.protocol
        if protocol is None or not protocol.first_pong_sent or protocol.connect.protocol < 1:
            return False
        self.send(self._info_line(True, is_lame_duck=True))
        return True

    # -- output -----------------------------------------------------------------------------------------------------

    def send(self, chunk: bytes) -> None:
        """Put bytes into the output; more than ``max_pending_bytes`` unsent closes a slow consumer."""
        if self.is_closed:
            return
        self._out.append(chunk)
        self._out_bytes += len(chunk)
        if not self._is_dirty:
            self._is_dirty = True
            self.server.mark_dirty(self)
        limit = self.server.options.max_pending_bytes
        if self._out_bytes + self._unsent_bytes > limit and self.pending_bytes() > limit:
            self.server.totals.slow_consumers += 1
            self._abort(CloseReason.SLOW_CONSUMER_PENDING_BYTES)

    def _traced(self, text: str) -> None:
        if self.account.is_system and not self.server.options.trace_verbose:
            return
        user = f'"{self.user.account}/user:{self.user.name}" - ' if self.user.name else ""
        log.info(f"{self.ip}:{self.port} - cid:{self.cid} - {user}{text}", trace=True)

    def flush(self) -> None:
        """Give the output to the transport in one write. The server calls it."""
        self._is_dirty = False
        transport = self.transport
        if not self._out or transport is None:
            return
        if transport.is_closing():
            self._out.clear()
            self._out_bytes = 0
            return
        out, self._out = self._out, []
        self._written_bytes += self._out_bytes
        self._out_bytes = 0
        if self._trace_out is not None:
            self._trace_out.feed(b"".join(out))
        transport.write(out[0] if len(out) == 1 else b"".join(out))
        self._unsent_bytes = transport.get_write_buffer_size()
        if self._unsent_bytes and self._deadline is None:
            self._arm_deadline()
        if self._waiting and self._unsent_bytes < self.server.options.write_pause_bytes:
            self._release_waiting()

    def traced_as(self) -> tuple[int, str, str]:
        """What traces of messages call it: cid, name, account."""
        name = self.protocol.connect.name if self.protocol is not None else ""
        return self.cid, name, self.account.name

    def pending_bytes(self) -> int:
        """Output not yet given to the network."""
        if self.transport is None or self.is_closed:
            return 0
        self._unsent_bytes = self.transport.get_write_buffer_size()
        return self._out_bytes + self._unsent_bytes

    def is_congested(self) -> bool:
        """Whether more than three quarters of the allowed output are pending."""
        limit = self.server.options.max_pending_bytes * 3 // 4
        return self._out_bytes + self._unsent_bytes > limit and self.pending_bytes() > limit

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Call back once, from the loop, when little is pending or the connection is gone."""
        if self.pending_bytes() < self.server.options.write_pause_bytes:
            self.server.loop.call_soon(callback)
        else:
            self._waiting.append(callback)

    def _release_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            self.server.loop.call_soon(callback)

    def _arm_deadline(self) -> None:
        sent = self._written_bytes - self._unsent_bytes
        self._deadline = self.server.loop.call_later(self.server.options.write_deadline_s, self._deadline_fired, sent)

    def _deadline_fired(self, sent_before: int) -> None:
        """No progress since the timer was set: a slow consumer, or a peer that does not even take our goodbye."""
        self._deadline = None
        transport = self.transport
        if transport is None:
            return
        self._unsent_bytes = transport.get_write_buffer_size()
        if not self._unsent_bytes:
            return
        if self._written_bytes - self._unsent_bytes > sent_before:
            self._arm_deadline()
        elif self.is_closed:
            transport.abort()
        else:
            self.server.totals.slow_consumers += 1
            self._abort(CloseReason.SLOW_CONSUMER_WRITE_DEADLINE)

    def _stall(self) -> None:
        """Stop reading for a moment: this producer is faster than some consumer."""
        if self.transport is None or self.is_closed or "stall" in self._timers:
            return
        self.stalls += 1
        self.server.totals.stalled_clients += 1
        self.transport.pause_reading()
        self._timers["stall"] = self.server.loop.call_later(STALL_S, self._resume_reading)

    def _resume_reading(self) -> None:
        del self._timers["stall"]
        if self.transport is not None and not self.is_closed:
            self.transport.resume_reading()

    # -- the end ----------------------------------------------------------------------------------------------------

    def close(self, reason: CloseReason, text: str = "") -> None:
        """Send what is owed (and ``-ERR`` with the text, if one is given), then close. Idempotent."""
        if self.protocol is not None and not self.is_closed:
            self._end(self.protocol.fail(text, reason))

    def _end(self, closing: Closing) -> None:
        if self.is_closed:
            return
        self.flush()
        self._leave(closing.reason)
        if self.transport is not None:
            self.transport.close()

    def _abort(self, reason: CloseReason) -> None:
        """Close at once and drop what is owed."""
        if self.is_closed:
            return
        self._leave(reason)
        if self.protocol is not None:
            self.protocol.fail("", reason)
        self._out.clear()
        self._out_bytes = 0
        if self.transport is not None:
            self.transport.abort()

    def _leave(self, reason: CloseReason) -> None:
        self.is_closed = True
        self.close_reason = reason
        if reason is CloseReason.STALE_CONNECTION:
            self.server.totals.stale_connections += 1
        if reason in _WARNED:
            log.warning(_WARNED[reason], cid=self.cid, ip=self.ip, port=self.port, reason=reason.value)
        self.router.drop_client(self)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _ping_timer_fired(self) -> None:
        server, protocol = self.server, self.protocol
        assert protocol is not None
        closing = protocol.ping_timer_fired(server.loop.time())
        if closing is not None:
            self._end(closing)
        else:
            interval_s = protocol.keepalive.interval_s
            self._timers["ping"] = server.loop.call_later(interval_s, self._ping_timer_fired)

    def _auth_timer_fired(self) -> None:
        assert self.protocol is not None
        closing = self.protocol.auth_timer_fired()
        if closing is not None:
            self._end(closing)

    def request_info(self, account: str, *, is_shared: bool) -> bytes:
        between = account if account != self.account.name else ""
        return request_info(self.stats(), between, self.server.info.server_name if is_shared else "")

    # -- monitoring -------------------------------------------------------------------------------------------------

    def stats(self) -> ConnectionStats:
        """The connection as it stands now; after its end, as it stood."""
        return stats_of(self)
