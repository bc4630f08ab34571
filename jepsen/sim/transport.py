"""One end of a simulated connection: a byte stream with latency, a window, a write buffer, FIN and RST.

What is sent is cut into segments of varying size, so that a reader never meets the same chunking twice. Between
machines a segment obeys the link (``links.py``): it may be late or held back until a cut has healed. On a connection
to a cluster port the unit is the frame: cut whole from the write buffer, perhaps lost, doubled or overtaken, handed to
the reader in pieces.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from jepsen.sim.links import FINE

if TYPE_CHECKING:
    from jepsen.sim.network import SimNetwork

Address = tuple[str, int]
OVERTAKEN_S = (0.001, 0.3)
"""How much later a frame comes that others overtake."""
RETRANSMIT_S = 0.4
"""How long after a cut has healed held bytes come, at most."""
HEAL_RESET_CHANCE = 0.25
"""A connection that was cut off is sometimes given up by one end's kernel."""


@dataclass(slots=True)
class Profile:
    """How one connection behaves."""

    latency_s: tuple[float, float] = (0.00002, 0.0002)
    segment_bytes: tuple[int, int] = (1, 65_536)
    window_bytes: int = 65_536

    @staticmethod
    def draw(rng: Random) -> Profile:
        """One of: a fast local link, a jittery one, one that brings crumbs, one with a tiny window."""
        kind = rng.randrange(8)
        if kind == 0:
            return Profile((0.0005, 0.02))
        if kind == 1:
            return Profile(segment_bytes=(1, 40), window_bytes=4096)
        if kind == 2:
            return Profile(segment_bytes=(1, 2000), window_bytes=1500)
        return Profile(segment_bytes=(rng.choice((1, 500, 60_000)), 65_536), window_bytes=262_144)


class SimSocket:
    """As much of a socket as code asks a transport or a server for."""

    def __init__(self, own: Address, peer: Address | None) -> None:
        self._own, self._peer = own, peer

    def getsockname(self) -> Address:
        return self._own

    def getpeername(self) -> Address:
        if self._peer is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._peer

    def setsockopt(self, *args: object) -> None:
        """Options have no effect on memory."""


class SimTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(
        self,
        network: SimNetwork,
        protocol: Any,
        context: contextvars.Context,
        profile: Profile,
        own: Address,
        peer: Address,
    ) -> None:
        super().__init__({"sockname": own, "peername": peer, "socket": SimSocket(own, peer)})
        self.network = network
        self.context = context
        self.host = own[0]
        self.profile = profile
        self.peer: SimTransport = self
        self.number = 0
        self.is_lost = False
        """connection_lost was called or will never be: the end does not exist any more."""
        self.is_cut = False
        """Half-open: what is sent goes nowhere, nobody is told."""
        self.is_stalled = False
        """Nothing is sent for now; buffers fill."""
        self.bytes_sent = 0
        self._protocol = protocol
        self._out = bytearray()
        self.is_framed = False
        """The unit is the frame (a connection to a cluster port)."""
        self._held: list[bytes | None] = []
        """What arrived while the link was cut, in order."""
        self._reset_held = False
        self._frames_in = 0
        self._owed = 0
        """Consumed bytes that the sender was not told of, because the way back is cut."""
        self._latest_arrival = 0.0
        self._in_flight = 0
        self._last_arrival = 0.0
        self._in: deque[bytes | None] = deque()
        self._reading = True
        self._closing = False
        self._fin_wanted = False
        self._fin_sent = False
        self._writing_paused = False
        self._high, self._low = 65_536, 16_384

    # -- life -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._soon(self._protocol.connection_made, self)

    def accept(self, protocol_factory: Any) -> None:
        def made() -> None:
            if self.is_lost:
                return
            self._protocol = protocol_factory()
            self._protocol.connection_made(self)
            self._take()

        self._soon(made)

    def vanish(self, reset_after_s: float) -> None:
        """This end's process died."""
        self.is_lost = self._closing = True
        self._out.clear()
        self._in.clear()
        self._held.clear()
        self._later(self.peer, reset_after_s, self.peer.reset)

    def reset(self) -> None:
        """An RST arrived: everything unsent is lost, and perhaps what was not read yet."""
        if self.is_lost or (self._closing and not self._out):
            return
        if self._is_cut_from(self.peer):
            self._reset_held = True
            return
        if self.network.rng.random() < 0.5:
            self._in.clear()
        self._lose(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _lose(self, error: Exception | None) -> None:
        if self.is_lost:
            return
        self.is_lost = self._closing = True
        self._out.clear()
        if self._protocol is not None:
            self._soon(self._protocol.connection_lost, error)

    # -- asyncio.Transport ----------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._in.clear()
        self._flush()

    def abort(self) -> None:
        if self.is_lost:
            return
        self._later(self.peer, self._latency(), self.peer.reset)
        self._lose(None)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._fin_wanted or not data:
            return
        self._out += data
        self._flush()
        if len(self._out) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self._fin_wanted = True
        self._flush()

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return len(self._out)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 65_536 if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._soon(self._take)

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    # -- moving bytes ---------------------------------------------------------------------------------------------

    def stall(self, stalled: bool) -> None:
        """Stop or go on sending."""
        self.is_stalled = stalled
        if not stalled:
            self._flush()

    def _flush(self) -> None:
        if self.is_framed:
            self._flush_frames()
        else:
            self._flush_segments()
        if self._out:
            return
        if (self._closing or self._fin_wanted) and not self._fin_sent:
            self._fin_sent = True
            self._send(None)
        if self._closing:
            self._lose(None)

    def _flush_segments(self) -> None:
        rng, profile, out = self.network.rng, self.profile, self._out
        while out and not self.is_stalled:
            room = profile.window_bytes - self._in_flight
            if room <= 0:
                return
            size = min(room, rng.randint(*profile.segment_bytes), len(out))
            segment = bytes(memoryview(out)[:size])
            del out[:size]
            self._in_flight += size
            self.bytes_sent += size
            self._send(segment)

    def _flush_frames(self) -> None:
        rng, links, out, framing = self.network.rng, self.network.links, self._out, self.network.framing
        while out and not self.is_stalled and self._in_flight < self.profile.window_bytes:
            size = framing.size(out)
            if not 0 < size <= len(out):
                if self._closing:
                    out.clear()
                return
            frame = bytes(memoryview(out)[:size])
            del out[:size]
            self.bytes_sent += size
            link = links.get(self.host, self.peer.host)
            if link.damage and rng.random() < link.damage:
                links.count("frame damaged")
                at = rng.randrange(size)
                frame = frame[:at] + bytes([frame[at] ^ (1 << rng.randrange(8))]) + frame[at + 1 :]
            if not link.harms_frames or not framing.may_be_harmed(frame):
                self._in_flight += size
                self._send(frame)
                continue
            if rng.random() < link.loss:
                links.count("frame lost")
                self.network.loop.trace("lost", self.number, size)
                continue
            copies = 1
            if rng.random() < link.double:
                links.count("frame doubled")
                copies = 2
            for _ in range(copies):
                self._in_flight += size
                is_late = rng.random() < link.overtake
                if is_late:
                    links.count("frame overtaken")
                self._send(frame, late_s=rng.uniform(*OVERTAKEN_S) if is_late else 0.0)

    def _send(self, segment: bytes | None, late_s: float = 0.0) -> None:
        if self.is_cut:
            return
        loop = self.network.loop
        through = loop.now() + self._latency()
        link = self.network.links.get(self.host, self.peer.host)
        if link is not FINE:
            through = link.passes_at(through, len(segment or b""), self.network.rng.random())
        if late_s:
            arrival = through + late_s
        else:
            arrival = self._last_arrival = max(self._last_arrival, through)
        self._latest_arrival = max(self._latest_arrival, arrival)
        if segment is None:
            arrival = self._latest_arrival
        loop.trace_line(f"net {self.number} {-1 if segment is None else len(segment)}\n")
        loop.call_world_at(arrival, self.peer._arrived, segment, context=self.peer.context)

    def _arrived(self, segment: bytes | None) -> None:
        if self._is_cut_from(self.peer) or self._held:
            self.network.links.count("held back")
            self._held.append(segment)
            return
        if self.is_lost or self._closing:
            if segment is not None and not self.peer.is_lost:
                self._later(self.peer, self._latency(), self.peer.reset)
            return
        if segment is not None and self.is_framed:
            segment = self.network.framing.numbered(segment, self._frames_in)
            self._frames_in += 1
            self._in.extend(_pieces(segment, self.network.rng))
        else:
            self._in.append(segment)
        self._take()

    def _is_cut_from(self, peer: SimTransport) -> bool:
        return self.network.links.get(peer.host, self.host).is_cut

    def healed(self) -> None:
        """A cut may have ended: what was held back comes soon."""
        if (self._held or self._reset_held) and not self._is_cut_from(self.peer):
            rng = self.network.rng
            if not self._reset_held and rng.random() < HEAL_RESET_CHANCE:
                self.network.links.count("reset after a cut")
                self._held.clear()
                self._later(self, rng.uniform(0.0, RETRANSMIT_S), self.reset)
                self._later(self.peer, rng.uniform(0.0, RETRANSMIT_S), self.peer.reset)
            else:
                self._later(self, rng.uniform(0.0, RETRANSMIT_S), self._release)
        if self._owed and not self.peer._is_cut_from(self):
            owed, self._owed = self._owed, 0
            self.peer._consumed(owed)

    def _release(self) -> None:
        if self._is_cut_from(self.peer):
            return
        held, self._held = self._held, []
        if self._reset_held:
            self._reset_held = False
            self.reset()
            return
        for segment in held:
            self._arrived(segment)

    def _take(self) -> None:
        """Give the protocol what arrived, as long as it reads."""
        if self._protocol is None:
            return
        while self._in and self._reading and not self._closing:
            segment = self._in.popleft()
            try:
                if segment is None:
                    if not self._protocol.eof_received():
                        self.close()
                    break
                self._deliver(segment)
            except Exception as error:  # noqa: BLE001  # asyncio, too, turns any error into a lost connection
                self.network.loop.call_exception_handler(
                    {"message": "Fatal error: protocol.data_received() call failed.", "exception": error}
                )
                self.abort()
                return
            if self.peer._is_cut_from(self):
                self._owed += len(segment)
            else:
                self.peer._consumed(len(segment))

    def _deliver(self, segment: bytes) -> None:
        protocol = self._protocol
        if not isinstance(protocol, asyncio.BufferedProtocol):
            protocol.data_received(segment)
            return
        view = memoryview(segment)
        while view:
            buffer = memoryview(protocol.get_buffer(len(view)))
            taken = min(len(buffer), len(view))
            buffer[:taken] = view[:taken]
            protocol.buffer_updated(taken)
            view = view[taken:]

    def _consumed(self, size: int) -> None:
        self._in_flight -= size
        if self.is_lost:
            return
        if self._out:
            self._soon(self._flush)
        if self._writing_paused and len(self._out) <= self._low:
            self._writing_paused = False
            self._soon(self._resume_writing)

    def _resume_writing(self) -> None:
        if not self.is_lost:
            self._protocol.resume_writing()

    # -- scheduling -----------------------------------------------------------------------------------------------

    def _latency(self) -> float:
        low, high = self.profile.latency_s
        return low + (high - low) * self.network.rng.random()

    def _soon(self, callback: Callable[..., object], *args: Any) -> None:
        self.network.loop.call_soon(callback, *args, context=self.context)

    def _later(self, end: SimTransport, delay_s: float, callback: Callable[..., object]) -> None:
        loop = self.network.loop
        loop.call_world_at(loop.now() + delay_s, callback, context=end.context)


def _pieces(frame: bytes, rng: Random) -> list[bytes]:
    """The frame as a reader gets it: whole, or cut somewhere."""
    if len(frame) < 2 or rng.random() < 0.7:
        return [frame]
    at = rng.randrange(1, len(frame))
    return [frame[:at], frame[at:]]
