"""A client of several servers that do not forward to each other: it looks for the one that leads, as clients must then.

The harness tells it who claims to lead (``Guide``), sometimes wrongly: of two that claim it, either may be asked; one
client in six goes anywhere and stays there. An answer "not available", or word that somebody else leads now, makes it
leave: what it sent is answered or stays unknown, and whoever uses it connects anew.
"""

from __future__ import annotations

from random import Random
from typing import Any, Protocol

from jepsen.sim.client import ApiFailure, Client, NotSent, connect
from jepsen.sim.server import PORT

META = ""
"""Name under which the metadata's leader is asked for."""
META_CALLS = ("STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.NAMES", "STREAM.LIST", "INFO")
UNAVAILABLE = 10008
NOT_HERE = frozenset([10008, 10059])
"""Refusals that mean: not on this node, or not now."""
LOOK_AROUND_S = 0.4
LEAVE_S = 0.3
STUBBORN = 1 / 6


class Guide(Protocol):
    """Who knows where what is."""

    def claim_to_lead(self, stream: str) -> list[str]:
        """Hosts of the servers that believe they lead the stream; ``META``: the metadata."""

    @property
    def hosts(self) -> list[str]:
        """Of all servers."""

    @property
    def replicas(self) -> int:
        """How many a new stream gets."""

    def stream_in(self, words: list[str]) -> str:
        """Which of these words names a stream; "" = none."""


class ClusterClient(Client):
    """A connection to one server, and now and then another one for a single question. Made by ``connect_to_leader``."""

    is_one_of_several = True
    guide: Guide
    rng: Random
    host: str
    stream: str

    def settle(self, guide: Guide, rng: Random, host: str, stream: str) -> None:
        """Begin: this is where it is connected to, and what for."""
        self.guide, self.rng, self.host, self.stream = guide, rng, host, stream
        self.is_leaving = False
        self.is_stubborn = rng.random() < STUBBORN
        self._look_around()

    def _look_around(self) -> None:
        if self.is_closed or self.is_leaving:
            return
        leaders = self.guide.claim_to_lead(self.stream)
        if leaders and self.host not in leaders and not self.is_stubborn:
            self.leave()
        self.loop.call_later(LOOK_AROUND_S * self.rng.uniform(0.5, 1.5), self._look_around)

    def leave(self) -> None:
        """Send nothing more; close soon."""
        if not self.is_leaving:
            self.is_leaving = True
            self.loop.call_later(LEAVE_S, self.close)

    def send(self, data: bytes) -> None:
        if getattr(self, "is_leaving", False) and not data.startswith((b"CONNECT", b"UNSUB")):
            raise NotSent("looking for another server")
        super().send(data)

    def _message(self, arguments: list[bytes], body: bytes, *, has_header: bool) -> None:
        super()._message(arguments, body, has_header=has_header)
        is_refused = body.startswith(b"NATS/1.0 503") or (len(body) < 600 and b'"err_code":10008' in body)
        if is_refused and not self.is_closed and hasattr(self, "guide"):
            self.leave()

    async def api(self, call: str, body: dict[str, Any] | None = None, *, timeout_s: float = 5.0) -> dict[str, Any]:
        """Ask the server that claims to lead what the call is about; ``ApiFailure`` as it says.

        A stream that is there already is confirmed by its own leader only, and that need not lead the metadata.
        """
        try:
            return await self._ask(call, body, timeout_s)
        except ApiFailure as error:
            name = call.removeprefix("STREAM.CREATE.")
            if name == call or error.err_code != UNAVAILABLE or not self.guide.claim_to_lead(name):
                raise
        return await self._ask(f"STREAM.INFO.{name}", None, timeout_s)

    async def _ask(self, call: str, body: dict[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        words = call.split(".")
        is_meta = call.startswith(META_CALLS) and not call.startswith("STREAM.INFO")
        if call.startswith("STREAM.CREATE") and body is not None:
            body = {"num_replicas": self.guide.replicas, **body}
        leaders = self.guide.claim_to_lead(META if is_meta else self.guide.stream_in(words))
        if self.host in leaders or (self.is_stubborn and not is_meta) or not leaders:
            return await super().api(call, body, timeout_s=timeout_s)
        self._request += 1  # before anything is awaited: the name is that of an inbox
        other = await connect(f"{self.name}x{self._request}", PORT, host=self.rng.choice(leaders))
        try:
            return await other.api(call, body, timeout_s=timeout_s)
        finally:
            other.close()


async def connect_to_leader(guide: Guide, rng: Random, name: str, stream: str) -> ClusterClient:
    """A connection to whoever claims to lead the stream, to any server if nobody does."""
    leaders = guide.claim_to_lead(stream)
    host = rng.choice(guide.hosts if not leaders or rng.random() < STUBBORN else leaders)
    client = await connect(name, PORT, host=host, make=ClusterClient)
    client.settle(guide, rng, host, stream)
    return client
