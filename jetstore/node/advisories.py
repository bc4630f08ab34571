"""What happens to consumers, told to whoever subscribes to it: advisories and ack metrics.

Nothing is built unless somebody listens. Source: JetStream advisories.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from jetstore.clock import Clock
from jetstore.consumer.pending import Run
from jetstore.model.times import format_time
from jetstore.node.delivery_ports import LedStream
from jetstore.node.ports import Outlet

_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NUID_LETTERS = 22


def nuid(rng: Random, letters: int = NUID_LETTERS) -> str:
    """A name nobody else has, as NATS clients make them."""
    return "".join(rng.choices(_LETTERS, k=letters))


def in_domain(outlet: Outlet) -> dict[str, str]:
    """The field that names the domain, if there is one: the last of every advisory of JetStream's."""
    return {"domain": outlet.domain} if outlet.domain else {}


class Advisories:
    """Tells what one stream's consumers do."""

    def __init__(self, outlet: Outlet, clock: Clock, rng: Random, stream: LedStream) -> None:
        """``stream`` is asked for its name each time: a new group leads before it knows it."""
        self._outlet = outlet
        self._clock = clock
        self._rng = rng
        self._stream = stream

    def wants(self, kind: str, consumer: str) -> bytes:
        """The subject of this kind of advisory if somebody subscribes to it, else b""."""
        subject = f"$JS.EVENT.ADVISORY.CONSUMER.{kind}.{self._stream.name}.{consumer}".encode()
        return subject if self._outlet.has_interest(subject) else b""

    def wants_metric(self, consumer: str) -> bytes:
        """The subject of ack metrics if somebody subscribes to it, else b""."""
        subject = f"$JS.EVENT.METRIC.CONSUMER.ACK.{self._stream.name}.{consumer}".encode()
        return subject if self._outlet.has_interest(subject) else b""

    def tell(self, kind: str, what: str, consumer: str, **fields: Any) -> None:  # Any: JSON values
        """One advisory, if anybody wants it."""
        subject = self.wants(kind, consumer)
        if subject:
            self.send(subject, f"io.nats.jetstream.advisory.v1.{what}", consumer, **fields)

    def send(self, subject: bytes, type_name: str, consumer: str, **fields: Any) -> None:  # Any: JSON values
        """One event on a subject that ``wants`` gave; fields that are None are left out."""
        event = {
            "type": type_name,
            "id": nuid(self._rng),
            "timestamp": format_time(self._clock.wall_ns()),
            **({"account": fields.pop("account")} if "account" in fields else {}),
            "stream": self._stream.name,
            "consumer": consumer,
        }
        event.update((name, value) for name, value in fields.items() if value is not None)
        event |= in_domain(self._outlet)
        payload = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
        self._outlet.publish([subject], (), [payload])

    def tell_pause(self, consumer: str, paused: bool, until_ns: int) -> None:
        """A pause until then began, or is over."""
        self.tell("PAUSE", "consumer_pause", consumer, paused=paused, pause_until=format_time(until_ns))

    def tell_group(self, kind: str, what: str, consumer: str, group: str, **fields: Any) -> None:  # Any: JSON values
        """A client of a priority group was pinned, or lost its pin."""
        subject = self.wants(kind, consumer)
        if subject:
            type_name = f"io.nats.jetstream.advisory.v1.consumer_group_{what}"
            self.send(subject, type_name, consumer, account=self._outlet.account, group=group, **fields)

    def tell_dropped(self, consumer: str, runs: Sequence[Run]) -> None:
        """Pending messages were removed from the stream: they count as terminated."""
        if not self.wants("MSG_TERMINATED", consumer):
            return
        for run in runs:
            for seq in range(run.first, run.last + 1):
                self.tell(
                    "MSG_TERMINATED",
                    "terminated",
                    consumer,
                    consumer_seq=run.consumer_seq + seq - run.first,
                    stream_seq=seq,
                    deliveries=run.count,
                    reason="Unacknowledged message was deleted",
                )

    def tell_exhausted(self, consumer: str, runs: Sequence[Run]) -> None:
        """Messages ran out of delivery attempts."""
        if not self.wants("MAX_DELIVERIES", consumer):
            return
        for run in runs:
            for seq in range(run.first, run.last + 1):
                self.tell("MAX_DELIVERIES", "max_deliver", consumer, stream_seq=seq, deliveries=run.count)


class StreamAdvisories:
    """Tells what happens to one stream as a whole."""

    def __init__(self, outlet: Outlet, clock: Clock, rng: Random, stream: str) -> None:
        self._outlet = outlet
        self._clock = clock
        self._rng = rng
        self._stream = stream

    def tell(self, kind: str, what: str, **fields: Any) -> None:  # Any: JSON values
        """One advisory, if anybody wants it."""
        subject = f"$JS.EVENT.ADVISORY.STREAM.{kind}.{self._stream}".encode()
        if not self._outlet.has_interest(subject):
            return
        event = {
            "type": f"io.nats.jetstream.advisory.v1.{what}",
            "id": nuid(self._rng),
            "timestamp": format_time(self._clock.wall_ns()),
            "stream": self._stream,
            **fields,
            **in_domain(self._outlet),
        }
        payload = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
        self._outlet.publish([subject], (), [payload])
