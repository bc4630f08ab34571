"""Measuring services: how long answers to other accounts' requests took, told in the exporter's account.

A request is chosen by chance or by headers that say it is traced. Its measurement lives with the reply subject that
stands for the requestor's (``server/route/imports.py``) and ends with the first of: the answer (200), nobody took the
request (503), the requestor no longer listens (408), the time for answers is over (504). A request without a reply
subject is told of at once (400). Bounded: beyond the bound requests go on and are not measured.
Source: ADR-3 (distributed tracing of services), and what nats-server publishes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from jetstore.model.json import encode
from jetstore.model.times import format_time
from jetstore.node.advisories import nuid
from jetstore.node.ports import InternalSubscription
from jetstore.types import Nanos
from server.route.subscription import Sink

if TYPE_CHECKING:
    from server.route.router import Router

JsonDict = dict[str, Any]  # Any: JSON values
Header = dict[str, list[str]]
TYPE: Final = "io.nats.server.metric.v1.service_latency"
_PERCENT: Final = 100
_UBER: Final = "Uber-Trace-Id"
_UBER_CONTEXT: Final = "Uberctx-"
_B3: Final = "B3"
_B3_SAMPLED: Final = "X-B3-Sampled"
_B3_ID: Final = "X-B3-Traceid"
_B3_ALL: Final = (_B3_SAMPLED, _B3_ID, "X-B3-Parentspanid", "X-B3-Spanid")
_PARENT: Final = "Traceparent"
_STATE: Final = "Tracestate"
_NAME: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~ -]+")
_FLAGS: Final = re.compile(r"[+-]?[0-9a-fA-F]+")


class Timer(Protocol):
    """What ``call_later`` gives."""

    def cancel(self) -> None:
        """It does not come any more."""


class LatencyRule:
    """What an export says: where its measurements go, and how many percent are taken (0: by headers alone)."""

    __slots__ = ("sampling", "subject")

    def __init__(self, subject: bytes, sampling: int) -> None:
        self.subject = subject
        self.sampling = sampling


class Latencies:
    """Measures requests; one for all accounts of a server."""

    def __init__(
        self,
        wall_ns: Callable[[], int],
        rng: Random,
        call_later: Callable[[float, Callable[[], None]], Timer],
        requests_max: int,
    ) -> None:
        """``rng`` chooses samples and names events; ``requests_max``: measured at once, above: not measured."""
        self.wall_ns = wall_ns
        self.rng = rng
        self.call_later = call_later
        self.requests_max = requests_max
        self.in_flight = 0

    def sampled(self, rule: LatencyRule, header: bytes) -> Header | None:
        """Whether a request with this header block is measured: what of its headers made it so, or None."""
        if rule.sampling >= _PERCENT or (rule.sampling and self.rng.random() * _PERCENT < rule.sampling):
            return {}
        return _traced_by(_fields(header)) if header else None


class Measurement:
    """One request that is measured. Its first end counts."""

    __slots__ = ("_header", "_is_over", "_latencies", "_requestor", "_router", "_rule", "_since_ns", "_timer", "_watch")

    def __init__(
        self, latencies: Latencies, router: Router, rule: LatencyRule, requestor: Callable[[], JsonDict], header: Header
    ) -> None:
        """``router``: the exporter's."""
        self._latencies = latencies
        self._router = router
        self._rule = rule
        self._requestor = requestor
        self._header = header
        self._since_ns = latencies.wall_ns()
        self._is_over = False
        self._timer: Timer | None = None
        self._watch: InternalSubscription | None = None
        latencies.in_flight += 1

    def waits(self, home: Router, reply: bytes, wait_s: float, forget: Callable[[], None]) -> None:
        """The request is on its way; ``forget`` ends the waiting for an answer."""

        def late() -> None:
            self.late()
            forget()

        def heard(is_heard: bool) -> None:
            if not is_heard:
                self._end(408, "Request Timeout")
                forget()

        self._timer = self._latencies.call_later(wait_s, late)
        self._watch = home.watch_interest(reply, heard)

    def refused(self) -> None:
        """It says not where to answer."""
        self._end(400, "Bad Request")

    def unserved(self) -> None:
        """Nobody took it."""
        self._end(503, "Service Unavailable")

    def late(self) -> None:
        """Nobody answered in time."""
        self._end(504, "Service Timeout")

    def dropped(self) -> None:
        """Nothing is told of it."""
        self._over()

    def answered(self, responder: Sink) -> None:
        """A client answers, now."""
        if self._is_over:
            return
        now_ns = self._latencies.wall_ns()
        who, asked_by = described(responder, is_shared=True), self._requestor()
        took_ns, there_ns, back_ns = now_ns - self._since_ns, asked_by.get("rtt", 0), who.get("rtt", 0)
        system_ns = max(self._latencies.wall_ns() - now_ns, 0) if back_ns else 0
        found = {"status": 200, "requestor": asked_by, "responder": who, **self._shown(asked_by)}
        found |= {"service": max(took_ns - back_ns, 0), "system": system_ns, "total": there_ns + took_ns + system_ns}
        self._over()
        self._publish(found)

    def _end(self, status: int, problem: str) -> None:
        if self._is_over:
            return
        asked_by = self._requestor()
        found = {"status": status, "description": problem, "requestor": asked_by, **self._shown(asked_by)}
        self._over()
        self._publish(found | {"service": 0, "system": 0, "total": 0})

    def _shown(self, asked_by: JsonDict) -> JsonDict:
        start = format_time(Nanos(self._since_ns - asked_by.get("rtt", 0)))
        return ({"header": dict(sorted(self._header.items()))} if self._header else {}) | {"start": start}

    def _over(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._latencies.in_flight -= 1
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.close()

    def _publish(self, found: JsonDict) -> None:
        latencies = self._latencies
        event = {"type": TYPE, "id": nuid(latencies.rng), "timestamp": format_time(Nanos(latencies.wall_ns()))}
        self._router.publish([self._rule.subject], (), [encode(event | found)])


def described(client: Sink, *, is_shared: bool) -> JsonDict:
    """What a measurement says of a client; without ``is_shared`` only its account and round trip."""
    _, _, account = client.traced_as()
    found: JsonDict = json.loads(client.request_info(account, is_shared=is_shared) or b"{}")
    return found


# -- headers of traces --------------------------------------------------------------------------------------------


def _fields(block: bytes) -> Header:
    """By canonical name; nothing where a line is none."""
    found: Header = {}
    for line in block.split(b"\r\n")[1:]:
        if not line:
            continue
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            return {}
        found.setdefault(_canonical(name.decode()), []).append(value.strip(b" \t").decode("utf-8", "replace"))
    return found


def _canonical(name: str) -> str:
    """As MIME headers are written: each word begins with a capital."""
    return name if " " in name else "-".join(word.capitalize() for word in name.split("-"))


def _traced_by(fields: Header) -> Header | None:
    """The headers that say a request is traced; None: none does, or one says that it is not."""
    if _UBER in fields:
        parts = fields[_UBER][0].split(":")
        if len(parts) != 4 or not 1 <= len(parts[3]) <= 2 or not _is_odd(parts[3][-1]):
            return None
        return {name: fields[name] for name in fields if name == _UBER or name.startswith(_UBER_CONTEXT)}
    sampled = fields.get(_B3_SAMPLED, [""])[0]
    if sampled == "1" or (_B3_ID in fields and sampled != "0"):
        return {name: fields[name] for name in _B3_ALL if name in fields}
    if sampled == "0":
        return None
    if _B3 in fields:
        parts = fields[_B3][0].split("-")
        is_denied = (len(parts) > 2 and parts[2] == "0") or parts == ["0"]
        return None if is_denied else {_B3: fields[_B3]}
    parts = fields.get(_PARENT, [""])[0].split("-")
    if len(parts) == 4 and len(parts[3].encode()) == 2 and _is_odd(parts[3]):
        return {name: fields[name] for name in (_PARENT, _STATE) if name in fields}
    return None


def _is_odd(text: str) -> bool:
    """Whether a hexadecimal number of a byte, as it is read with a sign, has its last bit set."""
    return bool(_FLAGS.fullmatch(text)) and -128 <= int(text, 16) <= 127 and bool(int(text, 16) & 1)
