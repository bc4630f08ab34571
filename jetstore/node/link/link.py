"""One connection to another node: hello, then frames, pings, the end. Bytes only; ``Links`` decides what they mean.

::

    dialler   connect ── HELLO ──────────────►            ◄── HELLO ── check ── READY ──► up
    acceptor             accept ── HELLO arrives ── check ── HELLO ──►          READY ──► up

    up ── a better connection of the pair ──► retired (sends GOODBYE, still reads) ──► closed
    any state ── EOF, reset, bad frame, silence, refusal ──► closed
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol, cast

from jetstore.node.link.bulk import BulkClient
from jetstore.node.link.bulk_server import BulkServer
from jetstore.node.link.frames import HEAD_BYTES, FrameError, FrameReader, Kind, frame
from jetstore.node.link.hello import (
    FOREIGN_REASON,
    Hello,
    Purpose,
    Reason,
    Refused,
    decode_hello,
    decode_refusal,
    encode_hello,
    encode_refusal,
    is_foreign,
)
from jetstore.node.link.peer_memory import Sighting
from jetstore.node.link.ports import ConnectionStatus, Route
from jetstore.types import Buffer

if TYPE_CHECKING:
    from jetstore.limits import Limits

_PING = struct.Struct("<Q")
_READY = struct.Struct("<Q")
_HELLO_KINDS = (Kind.HELLO, Kind.READY, Kind.REFUSED)


ALREADY_CONNECTED = "the node that lives there is connected already"


class State(Enum):
    """Where a connection stands."""

    HELLO = "hello"
    UP = "up"
    RETIRED = "retired"
    CLOSED = "closed"


class LinkOwner(Protocol):
    """All connections of the node, as one of them sees it."""

    limits: Limits
    loop: asyncio.AbstractEventLoop

    def my_hello(self, purpose: Purpose, route: Route | None) -> Hello:
        """What this node says now; with the credentials of the route that was dialled."""

    def snapshot(self) -> Mapping[str, Sighting]:
        """What is remembered of all peers now."""

    def check(self, link: Link, theirs: Hello) -> None:
        """Refused if that hello is a reason not to talk."""

    def judge(self, link: Link) -> None:
        """Refused if what the other side says now contradicts what it said before it was asked."""

    def wants(self, link: Link) -> bool:
        """Whether a dialled connection is of use; False: the node that lives there is connected already."""

    def admit(self, link: Link) -> None:
        """Both sides agree: the connection is one of the node's from here on."""

    def body_bytes_max(self, purpose: Purpose) -> int:
        """Largest frame body that is taken on an admitted connection."""

    def on_made(self, link: Link) -> bool:
        """A connection was accepted; False: there is no room for it."""

    def on_frame(self, link: Link, kind: Kind, body: memoryview) -> None:
        """A frame that is not the link's own business."""

    def on_read_end(self, link: Link) -> None:
        """All frames of one read were handed over."""

    def on_goodbye(self, link: Link) -> None:
        """The other side will send no more here."""

    def on_writable(self, link: Link, is_writable: bool) -> None:
        """The transport's buffer has filled, or drained."""

    def on_closed(self, link: Link, reason: str) -> None:
        """It is gone. Called once, also for connections that were never admitted."""

    def on_refusal(self, link: Link, refusal: Refused, *, is_ours: bool) -> None:
        """One side refused the other."""

    def on_bad_frame(self, link: Link, text: str) -> None:
        """What came is no frame of ours; the connection is being closed."""


class Link(asyncio.BufferedProtocol):
    """See the module docstring. ``theirs`` is set once their hello was accepted."""

    def __init__(self, owner: LinkOwner, purpose: Purpose | None, route: Route | None) -> None:
        """A dialled connection has a purpose and a route; an accepted one learns its purpose from the hello."""
        self.owner = owner
        self.loop = owner.loop
        self.is_dialler = route is not None
        self.purpose = purpose
        self.route = route
        self.state = State.HELLO
        self.transport: asyncio.Transport | None = None
        self.theirs: Hello | None = None
        self.as_of: Mapping[str, Sighting] = {}
        """What was remembered when the other side was asked who it is."""
        self.durable_lsn = 0
        """The last that came on this connection."""
        self.address = str(route) if route is not None else ""
        self.is_writable = True
        self.has_said_goodbye = False
        self.has_heard_goodbye = False
        self.made_at_s = self.up_since_s = self.loop.time()
        self.rtt_s: float | None = None
        self.in_bytes = self.out_bytes = self.in_frames = self.out_frames = 0
        self.settled: asyncio.Future[str] = self.loop.create_future()
        """Done when the hello is over: "" = up, else why not."""
        self.client: BulkClient | None = None
        self.server: BulkServer | None = None
        """Both only on an admitted bulk connection."""
        self.closed: asyncio.Future[None] = self.loop.create_future()
        limits = owner.limits
        self._reader = FrameReader(
            body_bytes_max=limits.link_hello_bytes, resting_bytes=HEAD_BYTES + limits.link_hello_bytes
        )
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at_s = self.made_at_s
        self._checked_at_s = self.made_at_s
        """When the last ping was sent."""
        self._pings = 0
        self._reason = ""

    # -- transport events -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        transport.set_write_buffer_limits(high=self.owner.limits.link_frame_bytes)
        if self.state is State.CLOSED:  # given up before it came about
            transport.abort()
            return
        if not self.address:
            peer = transport.get_extra_info("peername")
            self.address = f"{peer[0]}:{peer[1]}" if peer else "?"
        if self.is_dialler:
            self._say_hello()
        elif not self.owner.on_made(self):
            self.abort("too many connections wait for their hello")
            return
        self._timer = self.loop.call_later(self.owner.limits.link_hello_timeout_s, self._hello_is_late)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self.state is State.CLOSED:  # the rest of a segment: read and forgotten
            self._reader.discard()
        return self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self.is_closed:
            return
        self.in_bytes += nbytes
        self._heard_at_s = self.loop.time()
        reader = self._reader
        reader.updated(nbytes)
        try:
            if self.state is State.HELLO and self.in_frames == 0 and is_foreign(reader.first_bytes()):
                raise Refused(Reason.FOREIGN, FOREIGN_REASON)
            for kind, body in reader.frames():
                self.in_frames += 1
                self._take(kind, body)
                if self.is_closed:
                    return
            if self.state is not State.HELLO:
                self.owner.on_read_end(self)
        except Refused as refusal:
            self._refuse(refusal)
        except FrameError as error:
            if not self.is_closed:
                self.owner.on_bad_frame(self, str(error))
                self.abort(f"bad frame: {error}")

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.is_writable = False
        self.owner.on_writable(self, False)

    def resume_writing(self) -> None:
        self.is_writable = True
        self.owner.on_writable(self, True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(self._reason or (f"lost: {exc}" if exc else "closed by the other side"))

    # -- frames ---------------------------------------------------------------------------------------------------

    def _take(self, kind: Kind, body: memoryview) -> None:
        if self.state is State.HELLO:
            self._take_hello(kind, body)
        elif kind is Kind.PING:
            self.send([(Kind.PONG, [bytes(body)])])
        elif kind is Kind.PONG:
            if len(body) != _PING.size:
                raise FrameError("short pong")
            if _PING.unpack(body)[0] == self._pings:
                self.rtt_s = self.loop.time() - self._checked_at_s
        elif kind is Kind.GOODBYE:
            self.has_heard_goodbye = True
            self.owner.on_goodbye(self)
            self._close_if_over()
        elif kind is Kind.REFUSED:
            self._refused_by_them(body)
        elif kind in _HELLO_KINDS:
            raise FrameError(f"{kind.name} after the hello")
        else:
            self.owner.on_frame(self, kind, body)

    def _take_hello(self, kind: Kind, body: memoryview) -> None:
        if kind is Kind.REFUSED:
            self._refused_by_them(body)
        elif kind is Kind.HELLO and self.theirs is None:
            theirs = decode_hello(body)
            if self.purpose is not None and theirs.purpose is not self.purpose:
                raise FrameError("a hello for another purpose")
            self.purpose = theirs.purpose
            self.owner.check(self, theirs)
            self.theirs = theirs
            self.durable_lsn = theirs.durable_lsn
            if self.is_dialler:
                self.owner.judge(self)
                if not self.owner.wants(self):
                    self.abort(ALREADY_CONNECTED)
                    return
                self.send([(Kind.READY, [_READY.pack(self.owner.my_hello(self.purpose, None).durable_lsn)])])
                self._go_up()
            else:
                self._say_hello()
        elif kind is Kind.READY and self.theirs is not None:
            if len(body) != _READY.size:
                raise FrameError("short ready")
            (self.durable_lsn,) = _READY.unpack(body)
            if self.durable_lsn < self.theirs.durable_lsn:
                raise Refused(Reason.OLD_DISK, "journal goes back within one hello")
            self.owner.judge(self)
            self._go_up()
        else:
            raise FrameError(f"{kind.name} instead of a hello")

    def _say_hello(self) -> None:
        assert self.purpose is not None
        self.as_of = self.owner.snapshot()
        self.send([(Kind.HELLO, [encode_hello(self.owner.my_hello(self.purpose, self.route))])])

    def _go_up(self) -> None:
        assert self.purpose is not None
        limits = self.owner.limits
        self._reader.body_bytes_max = self.owner.body_bytes_max(self.purpose)
        at_once = limits.socket_read_bytes
        if self.purpose is Purpose.RAFT:
            at_once += limits.link_frame_bytes  # a full frame comes in without the buffer being made anew
        self._reader.resting_bytes = max(at_once, HEAD_BYTES + limits.link_hello_bytes)
        self.up_since_s = self._checked_at_s = self.loop.time()
        self.state = State.UP
        self._cancel_timer()
        self._timer = self.loop.call_later(limits.link_ping_s, self._ping)
        if not self.settled.done():
            self.settled.set_result("")
        self.owner.admit(self)

    def _refused_by_them(self, body: memoryview) -> None:
        refusal = decode_refusal(body)
        self.owner.on_refusal(self, refusal, is_ours=False)
        self.abort(f"refused: {refusal.text}")

    def _refuse(self, refusal: Refused) -> None:
        if self.state is State.CLOSED:
            return
        self.owner.on_refusal(self, refusal, is_ours=True)
        assert self.transport is not None
        if refusal.reason is Reason.FOREIGN:
            self.transport.write(f"-ERR '{FOREIGN_REASON}'\r\n".encode())
        else:
            self.send([(Kind.REFUSED, [encode_refusal(refusal)])])
        self.close(refusal.text)

    # -- sending --------------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Over; nothing of it counts any more."""
        return self.state is State.CLOSED

    @property
    def pending_bytes(self) -> int:
        """Unsent bytes in the transport."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def send(self, frames: Sequence[tuple[Kind, Sequence[Buffer]]]) -> None:
        """All of it in one write. Nothing happens on a closed connection."""
        if self.transport is None or self.state is State.CLOSED or self.transport.is_closing():
            return
        buffers: list[Buffer] = []
        for kind, parts in frames:
            buffers += frame(kind, self.out_frames, parts)
            self.out_frames += 1
        self.out_bytes += sum(map(len, buffers))
        self.transport.writelines(buffers)

    def say_goodbye(self) -> None:
        """Nothing more will be sent here; idempotent."""
        if not self.has_said_goodbye:
            self.has_said_goodbye = True
            self.send([(Kind.GOODBYE, [])])
            self._close_if_over()

    def _close_if_over(self) -> None:
        if self.has_said_goodbye and self.has_heard_goodbye and self.state is not State.CLOSED:
            self.close("another connection has taken over")

    # -- time -----------------------------------------------------------------------------------------------------

    def _hello_is_late(self) -> None:
        self._timer = None
        self.abort("no hello in time")

    def _ping(self) -> None:
        limits = self.owner.limits
        now = self.loop.time()
        was_away = now - self._checked_at_s > limits.link_silence_s / 2
        self._checked_at_s = now
        if now - self._heard_at_s > limits.link_silence_s and not was_away:
            self._timer = None
            self.abort(f"nothing came for {now - self._heard_at_s:.1f} s")
            return
        self._pings += 1
        self.send([(Kind.PING, [_PING.pack(self._pings)])])
        self._timer = self.loop.call_later(limits.link_ping_s, self._ping)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """Send what is owed, then close."""
        self._reason = self._reason or reason
        if self.transport is not None:
            self.transport.close()
            if self.pending_bytes:  # whoever does not take it in time does not get it
                self.loop.call_later(self.owner.limits.link_hello_timeout_s, self.transport.abort)
        self._end(reason)

    def abort(self, reason: str) -> None:
        """Close at once."""
        self._reason = self._reason or reason
        if self.transport is not None:
            self.transport.abort()
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self._cancel_timer()
        if not self.settled.done():
            self.settled.set_result(reason)
        if not self.closed.done():
            self.closed.set_result(None)
        self.owner.on_closed(self, reason)

    @property
    def heard_at_s(self) -> float:
        """When anything came last, on the loop's clock."""
        return self._heard_at_s

    def status(self) -> ConnectionStatus:
        """For monitoring."""
        return ConnectionStatus(
            is_dialler=self.is_dialler,
            address=self.address,
            up_since_s=self.up_since_s,
            rtt_s=self.rtt_s,
            in_bytes=self.in_bytes,
            out_bytes=self.out_bytes,
            in_frames=self.in_frames,
            out_frames=self.out_frames,
            pending_bytes=self.pending_bytes,
        )
