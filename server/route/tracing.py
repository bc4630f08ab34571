"""Message tracing: a message that asks for it (``Nats-Trace-Dest``) is followed, and its story is published.

The story says where the message came in, what mappings and imports made of it, which streams it reached and what they
did with it, and who got it or why not. ``Nats-Trace-Only`` tells what would happen, and nothing does. A sampled
``traceparent`` header does the same where the account has a destination for traces.

A trace lives as ``trace`` at the connection that published, for as long as its message is routed; messages that ask for
nothing never come here. On a cluster a trace ends at the links to other nodes, and says so.
Source: ADR-41 (message path tracing).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jetstore.model.json import encode
from jetstore.model.subjects import is_valid_literal
from jetstore.model.times import format_time
from jetstore.stream.headers import PLAIN_START, replaced
from jetstore.types import Nanos
from server.protocol import reasons
from server.protocol.encoding import ACCEPT_ENCODING, compressed
from server.route.delivery import Columns
from server.route.subscription import Sink, Subscription

if TYPE_CHECKING:
    from server.route.router import Router

JsonDict = dict[str, Any]  # Any: JSON values
DEST: Final = b"Nats-Trace-Dest"
DISABLED: Final = b"trace disabled"
"""What stands as the destination where nobody may follow any more."""
NO_ECHO: Final = "Not delivered because of no echo"
DENIED: Final = "Not delivered because subscription denies this subject"
SUBSCRIPTION_CLOSED: Final = "Not delivered because subscription is closed"
CLIENT_CLOSED: Final = "Not delivered because client is closed"
CONSUMER_SLOW: Final = "Not delivered because fast producer not stalled and consumer is slow"
DELIVERED_UNTRACED: Final = (
    "Message delivered but remote does not support message tracing so no trace event generated from there"
)
REMOTE_UNTRACED: Final = "Not delivered because remote does not support message tracing"
_ONLY: Final = "Nats-Trace-Only"
_ORIGIN: Final = "Nats-Trace-Origin-Account"
_PARENT: Final = b"traceparent"
_CLIENT_KIND: Final = 0
_ROUTER_KIND: Final = 1
_PERCENT: Final = 100
_SMALL_BYTES: Final = 128
"""Messages up to this size, on average, are searched as a whole."""


class Begun(NamedTuple):
    """How the way of a message begins that looked as if it asked for a trace."""

    trace: MessageTrace | None = None
    columns: Columns | None = None
    """The message as it goes on; None: it goes nowhere."""
    violation: bytes = b""
    """What its sender is told."""


class MessageTrace:
    """The story of one message (``jetstore.node.ports.MessageTrace``)."""

    def __init__(self, tracing: Tracing, router: Router, dest: bytes, request: JsonDict, *, is_only: bool) -> None:
        self.is_only = is_only
        self._tracing = tracing
        self._router = router
        self.dest = dest
        self._request = request
        self._account = router.account
        self._events: list[JsonDict] = []
        self._untold = 1
        """Who still has to say something: the router, and streams."""

    # -- what happened ------------------------------------------------------------------------------------------------

    def came_in(self, client: Sink, subject: bytes) -> None:
        """The first event."""
        cid, name, _ = client.traced_as()
        shown = {"kind": _CLIENT_KIND, "cid": cid, **({"name": name} if name else {})}
        self._add("in", shown | {"acc": self._account, "subj": _text(subject)})

    def refused(self, violation: str) -> None:
        """Its sender may not publish it."""
        self._events[0]["error"] = violation

    def mapped(self, subject: bytes) -> None:
        """A mapping made this of its subject."""
        self._add("sm", {"to": _text(subject)})

    def exported(self, account: str, subject: bytes) -> None:
        """Another account sees it, on this subject."""
        self._add("se", {"acc": account, "to": _text(subject)})

    def imported(self, account: str, subject: bytes, there: bytes) -> None:
        """It is a request to a service of another account."""
        self._add("si", {"acc": account, "from": _text(subject), "to": _text(there)})

    def reaches(
        self, subscription: Subscription, publisher: Sink, subject: bytes, *, drops_when_congested: bool
    ) -> bool:
        """Whether the client behind a subscription gets it; both is told."""
        sink = subscription.sink
        assert sink is not None
        permits = sink.permits
        problem = ""
        if sink is publisher and not sink.echo:
            problem = NO_ECHO
        elif (
            permits is not None and permits.filters_deliveries and not permits.may_receive(subject, subscription.queue)
        ):
            problem = DENIED
        elif subscription.is_closed:
            problem = SUBSCRIPTION_CLOSED
        elif sink.is_closed:
            problem = CLIENT_CLOSED
        elif drops_when_congested and sink.is_congested():
            problem = CONSUMER_SLOW
        cid, name, account = sink.traced_as()
        shown: JsonDict = {"kind": _CLIENT_KIND, "cid": cid, "sub": _text(subscription.subject)}
        given = {"name": name, "acc": account if account != self._account else "", "error": problem}
        given["queue"] = _text(subscription.queue)
        self._add("eg", shown | {key: value for key, value in given.items() if value})
        return not problem

    def to_node(self, name: str) -> None:
        """Another node gets it, where nothing is told."""
        problem = REMOTE_UNTRACED if self.is_only else DELIVERED_UNTRACED
        self._add("eg", {"kind": _ROUTER_KIND, "cid": 0, "name": name, "error": problem})

    def at_stream(self, stream: str) -> Callable[[str, bool, str], None]:
        """As ``jetstore.node.ports.MessageTrace`` says."""
        event = self._add("js", {"stream": stream})
        self._untold += 1

        def told(subject: str, no_interest: bool, problem: str) -> None:
            given = {"subject": subject, "nointerest": no_interest, "error": problem}
            event.update({key: value for key, value in given.items() if value}, ts=self._tracing.now())
            self.end()

        return told

    def handlers(self, subscriptions: Sequence[Subscription], subject: bytes) -> list[Subscription]:
        """Which of the engine's subscriptions get it; those of the API count as a service of the system account."""
        kept = []
        for each in subscriptions:
            handler = each.handler
            traced_to = getattr(handler, "traced_to", None)
            there = traced_to(subject) if traced_to is not None else b""
            if there:
                self.imported(self._tracing.system_account, subject, there)
            if not self.is_only or getattr(handler, "judges_traced", False):
                kept.append(each)
        return kept

    def _add(self, kind: str, event: JsonDict) -> JsonDict:
        self._events.append({"type": kind, "ts": self._tracing.now(), **event})
        return self._events[-1]

    # -- the end ------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """One of those who had something to say has said it; after the last the story is published."""
        self._untold -= 1
        if self._untold:
            return
        body = encode({"server": self._tracing.server(), "request": self._request, "events": self._events})
        encoding, body = compressed(self._request["header"].get(ACCEPT_ENCODING.decode(), [""])[0], body)
        header = b"%bContent-Encoding: %b\r\n\r\n" % (PLAIN_START, encoding) if encoding else b""
        self._router.publish([self.dest], [len(header)] if header else (), [header + body])


class Tracing:
    """Begins traces; one for all accounts of a server."""

    def __init__(
        self, system_account: str, server: Callable[[], JsonDict], wall_ns: Callable[[], int], rng: Random
    ) -> None:
        """``server``: what answers say of the server; ``rng`` chooses samples."""
        self.system_account = system_account
        self.server = server
        self._wall_ns = wall_ns
        self._rng = rng

    def now(self) -> str:
        """The time as events tell it."""
        return format_time(Nanos(self._wall_ns()))

    def begin(self, router: Router, client: Sink, columns: Columns, size: int = 0) -> Begun:
        """Look at one message closely. Nothing is traced that says nothing of where to.

        ``size``: of the whole message, where that was not read.
        """
        payload, cut = columns.payloads[0], columns.header_lens[0]
        fields = _fields(payload[:cut])
        dest = fields.get(DEST.decode(), [""])[0].encode("latin-1")
        is_asked = bool(dest)
        if dest == DISABLED or not (is_asked or (router.trace_dest and _is_sampled(fields))):
            return Begun(columns=columns)
        is_only = is_asked and fields.get(_ONLY, [""])[0].lower() in ("1", "true", "on")
        ends = Begun() if is_only else Begun(columns=columns)
        if _ORIGIN in fields:
            return ends if is_only else Begun(columns=disabled(columns))
        if not is_asked:
            dest = router.trace_dest
            if router.trace_sampling and self._rng.random() * _PERCENT >= router.trace_sampling:
                return ends
        if not is_valid_literal(_text(dest)):
            return ends
        if not router.may_publish(client, dest):
            return Begun(violation=reasons.publish_violation(dest))
        request = {"header": fields, "msgsize": size or len(payload)}
        trace = MessageTrace(self, router, dest, request, is_only=is_only)
        trace.came_in(client, columns.subjects[0])
        return Begun(trace, columns)


def marked(columns: Columns, *, has_dest: bool) -> list[int]:
    """Which messages may ask for a trace; ``has_dest``: the account has a destination for those that ask for none.

    One search in all that is joined: it is far faster than one for each message, and it finds nothing nearly always.
    """
    payloads, lens = columns.payloads, columns.header_lens
    if sum(map(len, payloads)) <= _SMALL_BYTES * len(payloads):
        joined = b"".join(payloads)
    else:
        joined = b"".join([payload[:length] for payload, length in zip(payloads, lens, strict=True)])
    if DEST not in joined and not (has_dest and _PARENT in joined.lower()):
        return []
    blocks = [payload[:length] for payload, length in zip(payloads, lens, strict=True)]
    return [at for at, block in enumerate(blocks) if DEST in block or (has_dest and _PARENT in block.lower())]


def publish_traced(router: Router, client: Sink, columns: Columns, asking: Sequence[int]) -> None:
    """Publish a client's run in which some ask for a trace: each by itself, what stands between them as runs."""
    assert router.tracing is not None
    start = 0
    for at in [*asking, len(columns.payloads)]:
        if start < at:
            router.publish_run(client, columns.part(start, at))
        start = at + 1
        if at == len(columns.payloads):
            return
        begun = router.tracing.begin(router, client, columns.part(at, at + 1))
        if begun.violation:
            client.send(reasons.error_line(begun.violation))
        elif begun.columns is not None:
            client.trace = begun.trace
            try:
                router.publish_run(client, begun.columns)
            finally:
                client.trace = None
            if begun.trace is not None:
                begun.trace.end()


def trace_oversized(router: Router, client: Sink, subject: bytes, header: bytes, size: int) -> None:
    """A message was too large for its connection to live on: if it asked for a trace, that is all of its story."""
    columns = Columns([subject], [b""], [len(header)], [header])
    if router.tracing is not None and marked(columns, has_dest=bool(router.trace_dest)):
        begun = router.tracing.begin(router, client, columns, size)
        if begun.trace is not None:
            begun.trace.refused("maximum payload exceeded")
            begun.trace.end()


def disabled(columns: Columns) -> Columns:
    """The same message, which nobody follows from here on."""
    return redirected(columns, DISABLED)


def unfollowed(client: Sink, trace: MessageTrace, columns: Columns, forward: Callable[[Columns], int]) -> int:
    """Hand over a traced message to where its way is not told; how many somebody took."""
    if trace.is_only:
        return 0
    client.trace = None
    try:
        return forward(disabled(columns))
    finally:
        client.trace = trace


def redirected(columns: Columns, dest: bytes) -> Columns:
    """The same message with another destination for its trace."""
    cut = columns.header_lens[0]
    payload = columns.payloads[0]
    header = replaced(payload[:cut], DEST, dest)
    return columns._replace(header_lens=[len(header)], payloads=[header + payload[cut:]])


def _fields(header: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in header.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if colon and name and value:
            found.setdefault(_text(name), []).append(_text(value))
    return found


def _is_sampled(fields: dict[str, list[str]]) -> bool:
    """Whether a ``traceparent`` has its sampled flag set (W3C Trace Context)."""
    for name, values in fields.items():
        if name.lower() == _PARENT.decode():
            for value in values:
                parts = value.split("-")
                if len(parts) == 4 and len(parts[3]) == 2:
                    try:
                        if int(parts[3], 16) & 1:
                            return True
                    except ValueError:
                        continue
    return False


def _text(given: bytes) -> str:
    return given.decode("utf-8", "replace")
