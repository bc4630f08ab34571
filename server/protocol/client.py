"""The server's side of one client connection, without I/O.

Theory of operation. The owner feeds what it read with ``receive`` and calls ``next_event`` until it returns None,
acting on each event before it asks for the next: that keeps everything this machine sends (``send``: PONG, +OK, -ERR)
in order with what the owner sends because of an event (deliveries, 503s). Any chunking of the same bytes gives the
same events and the same output, except that runs of messages may be cut differently.

Complete PUB/HPUB messages are taken many at a time by ``jetstore.hot.wire``; the rest goes line by line through
``LEGAL``. Memory is bounded: a control line by ``max_control_line``, a message by ``max_payload``; ignorable bytes
are dropped as they come.

States::

    AWAITING_CONNECT ──CONNECT, accepted──▶ OPEN ──(error)──▶ CLOSED
           └──(anything else: Authorization Violation)────────────▲
    VERIFYING stands between a CONNECT and its acceptance where the owner takes its time; input waits meanwhile.
    OPEN is also the first state where no authentication is configured: CONNECT is optional then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from jetstore.hot.wire import parse_publishes, size_of
from server.protocol import reasons
from server.protocol.connect import BadJson, ConnectOptions, check_json_object, parse_connect
from server.protocol.events import Closing, Connected, Event, Oversized, Publishes, Subscribe, Unsubscribe
from server.protocol.keepalive import Due, Keepalive
from server.protocol.lines import (
    NO_ARGUMENT,
    Op,
    UnknownOperation,
    argument,
    is_valid_literal,
    operation,
    split_arguments,
)
from server.protocol.reasons import CloseReason


class State(Enum):
    """Where a connection is in its life."""

    AWAITING_CONNECT = "awaiting connect"
    VERIFYING = "verifying"
    OPEN = "open"
    CLOSED = "closed"


LEGAL: Mapping[State, frozenset[Op]] = {
    State.AWAITING_CONNECT: frozenset({Op.CONNECT}),
    State.VERIFYING: frozenset(),
    State.OPEN: frozenset(Op),
    State.CLOSED: frozenset(),
}
"""Which operations are legal in which state; all others end the connection."""


class _Waiting:
    """Marks that the bytes at hand do not decide anything."""


_WAITING = _Waiting()


class Later(Enum):
    """What ``authenticate`` returns when it cannot tell yet; the owner calls ``authenticated`` when it can."""

    LATER = "later"


@dataclass(frozen=True, slots=True)
class Denied:
    """What ``authenticate`` returns for right credentials that are of no use."""

    text: str
    reason: CloseReason


@dataclass(slots=True)
class ProtocolOptions:
    """What the server's configuration says about the protocol of its clients."""

    auth_required: bool = False
    headers: bool = True
    """False: the server does not support headers (``no_header_support``)."""
    max_payload_bytes: int = 1024 * 1024
    max_control_line_bytes: int = 4096
    ping_interval_s: float = 120.0
    ping_max: int = 2


class ClientProtocol:
    """See the module's docstring. One object per connection."""

    def __init__(
        self,
        options: ProtocolOptions,
        send: Callable[[bytes], None],
        authenticate: Callable[[ConnectOptions], object | None],
        info: Callable[[bool], bytes],
        now_s: float,
    ) -> None:
        """``authenticate`` returns who it is, None, or ``Later``.

        ``info(True)`` is the INFO line that follows the first PONG.
        """
        self.state = State.AWAITING_CONNECT if options.auth_required else State.OPEN
        self.connect = ConnectOptions()
        """As of the last CONNECT, else the defaults."""
        self.has_connected = False
        self.first_pong_sent = False
        self.headers = False
        """Whether both sides understand headers."""
        self.no_responders = False
        self.keepalive = Keepalive(now_s, options.ping_interval_s, options.ping_max)
        self._before = self.state
        self._given = self.connect
        """The state to go back to while VERIFYING, and the CONNECT that came last."""
        self._options = self._shared_options = options
        self._send = send
        self._authenticate = authenticate
        self._info = info
        self._now_s = now_s
        self._buffer = b""
        self._pos = 0
        self._ahead: deque[bytes] = deque()
        """What arrived after ``_buffer``, not yet looked at; the first ``_ahead_skip`` bytes of it were taken."""
        self._ahead_skip = 0
        self._ahead_bytes = 0
        self._one_by_one = True
        """Verbose and pedantic clients are answered per message, so their messages cannot go as runs."""

    @property
    def is_verifying(self) -> bool:
        """Whether input waits until ``authenticated`` is called."""
        return self.state is State.VERIFYING

    # -- input ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now_s: float) -> None:
        """Take what was read from the socket. Copied only where a message straddles two reads."""
        if self.state is State.CLOSED or not data:
            return
        self._now_s = now_s
        self.keepalive.last_activity_s = now_s
        if self._pos == len(self._buffer) and not self._ahead:
            self._buffer, self._pos = data, 0
            return
        self._ahead.append(data)
        self._ahead_bytes += len(data)

    def next_event(self) -> Event | None:
        """The next thing to act on, or None if more input is needed. After ``Closing`` always None."""
        while self.state is not State.CLOSED and self.state is not State.VERIFYING:
            if self._pos == len(self._buffer) and not (self._ahead and self._pull(0)):
                return None
            options = self._options
            if not self._one_by_one and self._buffer[self._pos] in b"PH":
                parsed = parse_publishes(
                    self._buffer, self._pos, options.max_control_line_bytes, options.max_payload_bytes, self.headers
                )
                if parsed.payloads:
                    self._pos = parsed.pos
                    return Publishes(parsed.subjects, parsed.replies, parsed.header_lens, parsed.payloads)
                if parsed.need:
                    if self._pull(parsed.need):
                        continue
                    return None
            event = self._control()
            if isinstance(event, _Waiting):
                return None
            if event is not None:
                return event
        return None

    def _pull(self, need: int) -> bool:
        """Lengthen the buffer so that ``need`` bytes (0: one more line end) follow the position; False: not there."""
        rest = len(self._buffer) - self._pos
        if not self._ahead or rest + self._ahead_bytes < need:
            return False
        if not rest:
            self._buffer = self._ahead.popleft()
            self._pos = self._ahead_skip
            self._ahead_bytes -= len(self._buffer) - self._pos
            self._ahead_skip = 0
            return True
        pieces = [self._buffer[self._pos :]]
        missing = need - rest
        while need == 0 or missing > 0:
            chunk = self._ahead[0]
            if need == 0:
                line_end = chunk.find(b"\n", self._ahead_skip)
                missing = (line_end + 1 if line_end >= 0 else len(chunk)) - self._ahead_skip
            piece = chunk[self._ahead_skip : self._ahead_skip + missing]
            pieces.append(piece)
            self._ahead_bytes -= len(piece)
            missing -= len(piece)
            self._ahead_skip += len(piece)
            if self._ahead_skip == len(chunk):
                self._ahead.popleft()
                self._ahead_skip = 0
            if need == 0:
                break
        self._buffer = b"".join(pieces)
        self._pos = 0
        return True

    # -- control lines ----------------------------------------------------------------------------------------------

    def _control(self) -> Event | _Waiting | None:
        """Handle the line at the position: an event, None (handled), or waiting for more bytes."""
        line_end = self._buffer.find(b"\n", self._pos)
        is_whole = line_end >= 0
        line = self._buffer[self._pos : line_end] if is_whole else self._buffer[self._pos :]
        if self.state is State.AWAITING_CONNECT and line[:1] not in (b"C", b"c"):
            return self._fail(reasons.AUTHORIZATION_VIOLATION, CloseReason.AUTHENTICATION_FAILURE)
        try:
            op = operation(line)
        except UnknownOperation:
            return self._fail(reasons.UNKNOWN_OPERATION, CloseReason.PARSE_ERROR)
        if op is None:
            if is_whole:
                return self._fail(reasons.UNKNOWN_OPERATION, CloseReason.PARSE_ERROR)
            return None if self._pull(0) else _WAITING
        assert op in LEGAL[self.state]
        rest = argument(op, line)
        if op not in NO_ARGUMENT and len(rest) > self._options.max_control_line_bytes:
            return self._fail(reasons.MAXIMUM_CONTROL_LINE_EXCEEDED, CloseReason.MAXIMUM_CONTROL_LINE_EXCEEDED)
        if not is_whole:
            if op in NO_ARGUMENT:
                self._buffer, self._pos = op.value, 0
            elif not rest and not line.endswith(b"\r"):
                self._buffer, self._pos = line[: len(op.value) + 1], 0
            return None if self._pull(0) else _WAITING
        if op is Op.PUB or op is Op.HPUB:
            return self._publish(op, rest, line_end + 1)
        self._pos = line_end + 1
        return _HANDLERS[op](self, rest)

    def _fail(self, text: str, reason: CloseReason) -> Closing:
        """End the connection; a text is sent first, without one it closes silently."""
        if text:
            self._send(reasons.error_line(text))
        self.state = State.CLOSED
        self._buffer, self._pos = b"", 0
        self._ahead.clear()
        self._ahead_bytes = self._ahead_skip = 0
        return Closing(reason)

    def _publish(self, op: Op, rest: bytes, start: int) -> Event | _Waiting | None:
        """A PUB or HPUB in any spelling, one message."""
        args = split_arguments(rest)
        options = self._options
        header_len = 0
        if op is Op.HPUB:
            if not self.headers:
                return self._fail("", CloseReason.MESSAGE_HEADER_VIOLATION)
            if not 3 <= len(args) <= 4:
                return self._fail("", CloseReason.PARSE_ERROR)
            header_len = size_of(args.pop(-2))
        elif not 2 <= len(args) <= 3:
            return self._fail("", CloseReason.PARSE_ERROR)
        size = size_of(args[-1])
        if size < 0 or header_len < 0 or header_len > size:
            return self._fail("", CloseReason.PARSE_ERROR)
        if size > options.max_payload_bytes:
            oversized = Oversized(args[0], self._buffer[start : start + header_len], size) if header_len else None
            closing = self._fail(reasons.MAXIMUM_PAYLOAD_VIOLATION, CloseReason.MAXIMUM_PAYLOAD_EXCEEDED)
            return closing._replace(oversized=oversized)
        stop = start + size
        if stop + 2 > len(self._buffer):
            return None if self._pull(stop + 2 - self._pos) else _WAITING
        subject = args[0]
        if self.connect.pedantic and not is_valid_literal(subject):
            self._send(reasons.error_line(reasons.INVALID_PUBLISH_SUBJECT))
        if self._buffer[stop : stop + 2] != b"\r\n":
            return self._fail(reasons.UNKNOWN_OPERATION, CloseReason.PARSE_ERROR)
        self._pos = stop + 2
        reply = args[1] if len(args) == 3 else b""
        return Publishes([subject], [reply], [header_len] if header_len else [], [self._buffer[start:stop]])

    def _on_connect(self, rest: bytes) -> Event | None:
        try:
            connect = parse_connect(rest)
        except BadJson:
            return self._fail("", CloseReason.PARSE_ERROR)
        if connect.account or connect.new_account:
            return self._fail(reasons.AUTHORIZATION_VIOLATION, CloseReason.AUTHENTICATION_FAILURE)
        self._given = connect
        user = self._authenticate(connect)
        if user is Later.LATER:
            self._before, self.state = self.state, State.VERIFYING
            return None
        return self._let_in(connect, user)

    def authenticated(self, user: object | None) -> Event | None:
        """What a CONNECT that took its time came to: to be acted on before ``next_event`` is called again."""
        if self.state is not State.VERIFYING:
            return None
        self.state = self._before
        return self._let_in(self._given, user)

    @property
    def claimed(self) -> ConnectOptions:
        """What the client last said about itself, whether it was let in or not."""
        return self._given

    def _let_in(self, connect: ConnectOptions, user: object | None) -> Event:
        if isinstance(user, Denied):
            return self._fail(user.text, user.reason)
        if user is None:
            return self._fail(reasons.AUTHORIZATION_VIOLATION, CloseReason.AUTHENTICATION_FAILURE)
        if connect.protocol not in (0, 1):
            return self._fail(reasons.INVALID_CLIENT_PROTOCOL, CloseReason.BAD_CLIENT_PROTOCOL_VERSION)
        headers = connect.headers and self._options.headers
        if connect.no_responders and not headers:
            return self._fail(reasons.NO_RESPONDERS_REQUIRES_HEADERS, CloseReason.NO_RESPONDERS_REQUIRES_HEADERS)
        self.connect = connect
        self.has_connected = True
        self.headers = headers
        self.no_responders = connect.no_responders
        self.state = State.OPEN
        self._one_by_one = connect.verbose or connect.pedantic
        self.accept()
        return Connected(connect, user)

    def _on_ping(self, _rest: bytes) -> Event | None:
        self._send(reasons.PONG_LINE)
        if self.has_connected and not self.first_pong_sent and self.connect.protocol >= 1:
            self._send(self._info(True))
        self.first_pong_sent = True
        return None

    def _on_pong(self, _rest: bytes) -> Event | None:
        self.keepalive.pong(self._now_s)
        return None

    def _on_ok(self, _rest: bytes) -> Event | None:
        return None

    def _on_err(self, _rest: bytes) -> Event | None:
        return self._fail("", CloseReason.CLIENT_CLOSED)

    def _on_info(self, rest: bytes) -> Event | None:
        try:
            check_json_object(rest)
        except BadJson:
            return self._fail("", CloseReason.PARSE_ERROR)
        return None

    def _on_sub(self, rest: bytes) -> Event | None:
        args = split_arguments(rest)
        if not 2 <= len(args) <= 3:
            return self._fail("", CloseReason.PARSE_ERROR)
        return Subscribe(args[0], args[1] if len(args) == 3 else b"", args[-1])

    def _on_unsub(self, rest: bytes) -> Event | None:
        args = split_arguments(rest)
        if not 1 <= len(args) <= 2:
            return self._fail("", CloseReason.PARSE_ERROR)
        return Unsubscribe(args[0], max(size_of(args[1]), 0) if len(args) == 2 else 0)

    def limit_payload(self, max_payload_bytes: int) -> None:
        """From now on messages may be this large, or as all may be if that is less; -1: as all may be."""
        shared = self._shared_options
        is_less = 0 <= max_payload_bytes < shared.max_payload_bytes
        self._options = replace(shared, max_payload_bytes=max_payload_bytes) if is_less else shared

    # -- answers and time -------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """The owner carried out the last event: ``+OK`` if the client is verbose."""
        if self.connect.verbose:
            self._send(reasons.OK_LINE)

    def refuse(self, text: str | bytes) -> None:
        """The owner did not carry it out; the connection stays."""
        self._send(reasons.error_line(text))

    def fail(self, text: str, reason: CloseReason) -> Closing:
        """End the connection for a reason the owner found (empty text: silently)."""
        return self._fail(text, reason)

    def ping_timer_fired(self, now_s: float) -> Closing | None:
        """Send a PING if one is due; ``Closing`` if the client is stale. Next timer after the ping interval."""
        if self.state is State.CLOSED:
            return None
        due = self.keepalive.timer_fired(now_s)
        if due is Due.STALE:
            return self._fail(reasons.STALE_CONNECTION, CloseReason.STALE_CONNECTION)
        if due is Due.PING:
            self._send(reasons.PING_LINE)
        return None

    def auth_timer_fired(self) -> Closing | None:
        """``Closing`` if the client has not been let in by now."""
        state = self._before if self.state is State.VERIFYING else self.state
        if state is not State.AWAITING_CONNECT:
            return None
        return self._fail(reasons.AUTHENTICATION_TIMEOUT, CloseReason.AUTHENTICATION_TIMEOUT)


_HANDLERS: Mapping[Op, Callable[[ClientProtocol, bytes], Event | None]] = {
    Op.CONNECT: ClientProtocol._on_connect,
    Op.SUB: ClientProtocol._on_sub,
    Op.UNSUB: ClientProtocol._on_unsub,
    Op.PING: ClientProtocol._on_ping,
    Op.PONG: ClientProtocol._on_pong,
    Op.OK: ClientProtocol._on_ok,
    Op.ERR: ClientProtocol._on_err,
    Op.INFO: ClientProtocol._on_info,
}
