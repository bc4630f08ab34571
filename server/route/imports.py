"""What one account gets from another: streams (its messages) and services (its answers).

A stream import follows the importer's subscriptions: each that overlaps it gets a *shadow*, a subscription in the
exporter's sublist that delivers to the same connection, on the importer's subject and sid. So interest, queue groups
and limits are exact, and an account without imports pays nothing.

A service import is a *bridge*: a subscription in the importer's sublist that hands requests over to the exporter's
router. A request's reply becomes ``_R_.<token>`` there, and what is published on that goes back to the original reply
in the importer's account (``ReplyTable``). Bridges are synchronous: whether somebody took a request is known at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from jetstore.model.subjects import collide, is_subset
from jetstore.model.transforms import SubjectTransform
from jetstore.stream.headers import REQUEST_INFO, with_line, without
from server.route.delivery import Columns
from server.route.latency import LatencyRule, Measurement, described
from server.route.sublist import pattern_matches
from server.route.subscription import Sink, Subscription
from server.route.tracing import MessageTrace, redirected, unfollowed

if TYPE_CHECKING:
    from server.route.router import Router

REPLY_PREFIX: Final = b"_R_."
REPLIES_MAX: Final = 65_536
"""Requests of one exporter that wait for answers; above, the oldest is forgotten, as if it had timed out."""
DEPTH_MAX: Final = 16
"""Accounts a request may go through."""
_ALPHABET: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _text(subject: bytes) -> str:
    return subject.decode("latin-1")


class Shadow:
    """How what a shadow is given becomes what its owner subscribed to."""

    __slots__ = ("home", "made_by", "matches", "owner", "transform")

    def __init__(
        self,
        owner: Subscription,
        home: Router,
        made_by: StreamImport,
        matches: Callable[[bytes], bool] | None,
    ) -> None:
        self.owner = owner
        self.made_by = made_by
        self.home = home
        """The importer's router, which has the owner."""
        self.transform = made_by.transform
        self.matches = matches
        """Whether the owner wants a message with this (its own) subject; None: always."""

    def subjects(self, given: Sequence[bytes]) -> list[bytes]:
        """The importer's subjects."""
        if self.transform is None:
            return list(given)
        return [self.transform.apply(subject) or subject for subject in given]


class StreamImport:
    """Messages on ``subject`` of another account, seen here as ``local``."""

    def __init__(self, source: Router, subject: str, local: str, *, allows_trace: bool = False) -> None:
        """``local`` names the wildcards of ``subject`` by ``$n``, or has as many ``*``. Raises ``TransformError``."""
        self.source = source
        """The exporter's router, which has the shadows."""
        self.allows_trace = allows_trace
        """Whether traces tell who gets it."""
        self.subject = subject
        local = local or subject
        dest = numbered(local, subject)
        self._local_tokens = dest.split(".")
        self.pattern = pattern_of(dest)
        self.transform = SubjectTransform(subject, dest) if dest != numbered(subject, subject) else None

    def shadow_of(self, owner: Subscription, home: Router) -> Subscription | None:
        """The subscription to make at the source for one made here; None: they have nothing in common."""
        wanted = _text(owner.subject)
        if not collide(wanted, self.pattern):
            return None
        matches: Callable[[bytes], bool] | None = None
        subject = self.subject
        if not is_subset(self.pattern, wanted):
            narrowed = self._narrowed(wanted) if is_subset(wanted, self.pattern) else None
            if narrowed is None:
                matches = pattern_matches(owner.subject)
            else:
                subject = narrowed
        shadow = Subscription(subject.encode("latin-1"), owner.queue, owner.sid, sink=owner.sink)
        shadow.shadow = Shadow(owner, home, self, matches)
        return shadow

    def carries(self, subject: bytes) -> bool:
        """Whether a message on this subject there is heard here, on the same subject."""
        is_exported = is_subset(_text(subject), self.subject)
        return is_exported and (self.transform is None or self.transform.apply(subject) == subject)

    def _narrowed(self, wanted: str) -> str | None:
        """The source's pattern for a narrower local one; None: it cannot be told."""
        tokens = wanted.split(".")
        bound: dict[int, str] = {}
        rest: list[str] = []
        for at, token in enumerate(self._local_tokens):
            if token == ">":
                rest = tokens[at:]
            elif is_made(token) and token.startswith("$"):
                if int(token[1:]) in bound:
                    return None
                bound[int(token[1:])] = tokens[at]
            elif is_made(token):
                return None
        found: list[str] = []
        star = 0
        for token in self.subject.split("."):
            if token == "*":
                star += 1
                found.append(bound.get(star, "*"))
            elif token == ">":
                found += rest
            else:
                found.append(token)
        return ".".join(found)


class ServiceImport:
    """Requests on ``local`` here are requests on ``subject`` of another account. Raises ``TransformError``."""

    def __init__(
        self,
        target: Router,
        subject: str,
        local: str,
        answers: AnswerRule,
        *,
        is_shared: bool = False,
        allows_trace: bool = False,
        latency: LatencyRule | None = None,
    ) -> None:
        """``is_shared``: who answers learns all about who asks, not just the account.

        ``allows_trace``: traces tell what becomes of requests there. ``latency``: which requests are measured.
        """
        self.target = target
        self.is_shared = is_shared
        self._allows_trace = allows_trace
        self._latency = latency
        local = local or subject
        dest = numbered(local, subject)
        self.pattern = pattern_of(dest)
        self.answers = answers
        self.transform: SubjectTransform | None = None
        if dest != numbered(subject, subject):
            self.transform = SubjectTransform(self.pattern, _inverted(subject, dest))

    def resolve(self, subject: bytes) -> tuple[Router, bytes] | None:
        """Where messages on this subject go; None: the exporter's mappings lose them."""
        there = self._there(subject)
        if self.target.mappings is None:
            return self.target, there
        mapped = self.target.mappings.apply(Columns([there], (), (), [b""])).subjects
        return (self.target, mapped[0]) if mapped else None

    def _there(self, subject: bytes) -> bytes:
        return subject if self.transform is None else self.transform.apply(subject) or subject

    def forward(self, home: Router, client: Sink | None, columns: Columns) -> int:
        """Hand requests over; how many from the start somebody took."""
        target, given = self.target, columns.subjects
        subjects = given
        if target.depth >= DEPTH_MAX:
            return 0
        if self.transform is not None:
            subjects = [self._there(subject) for subject in subjects]
        if target.mappings is not None:
            columns = target.mappings.apply(columns._replace(subjects=subjects))
            if not columns.payloads:
                return 0
            subjects = columns.subjects
        trace = client.trace if client is not None else None
        if trace is not None and client is not None:
            trace.imported(target.account, given[0], subjects[0])
            return self._forward_traced(home, client, trace, columns._replace(subjects=subjects))
        return self._forward(home, client, columns._replace(subjects=subjects))

    def _forward_traced(self, home: Router, client: Sink, trace: MessageTrace, request: Columns) -> int:
        """The same for a request whose way is told: there, too, if the exporter allows it."""
        if not self._allows_trace:
            return unfollowed(client, trace, request, partial(self._forward, home, client))
        dest = self.target.replies.expect(home, trace.dest, self.answers)
        try:
            return self._forward(home, client, redirected(request, dest))
        finally:
            self.target.replies.forget(dest)

    def _forward(self, home: Router, client: Sink | None, columns: Columns) -> int:
        target, subjects = self.target, columns.subjects
        measured = self._measured(client, columns) if self._latency is not None else None
        info = client.request_info(home.account, is_shared=self.is_shared) if client is not None else b""
        if info:
            columns = _with_info(columns, info)
        replies = columns.replies
        if replies:
            expect, rule = target.replies.expect, self.answers
            replies = [expect(home, reply, rule, measured) if reply else b"" for reply in replies]
        taken = target.forwarded(client, Columns(subjects, replies, columns.header_lens, columns.payloads))
        for reply in replies[taken:]:
            if measured is not None:
                measured.unserved()
            target.replies.forget(reply)
        return taken

    def _measured(self, client: Sink | None, columns: Columns) -> Measurement | None:
        """The measurement of this (one) request, if it is to be measured; one without a reply subject ends at once."""
        latencies, rule = self.target.latencies, self._latency
        if latencies is None or rule is None or client is None or latencies.in_flight >= latencies.requests_max:
            return None
        if client.trace is not None and client.trace.is_only:
            return None
        header = latencies.sampled(rule, columns.payloads[0][: columns.header_lens[0]] if columns.header_lens else b"")
        if header is None:
            return None
        requestor = partial(described, client, is_shared=self.is_shared)
        measured = Measurement(latencies, self.target, rule, requestor, header)
        if columns.replies and columns.replies[0]:
            return measured
        measured.refused()
        return None


def _with_info(columns: Columns, info: bytes) -> Columns:
    """The same requests, each with a header that says who asks; what it said itself of that goes."""
    header_lens, payloads = [], []
    for at, payload in enumerate(columns.payloads):
        cut = columns.header_lens[at] if columns.header_lens else 0
        block = with_line(without(payload[:cut], REQUEST_INFO), REQUEST_INFO, info)
        header_lens.append(len(block))
        payloads.append(block + payload[cut:])
    return columns._replace(header_lens=header_lens, payloads=payloads)


class AnswerRule:
    """What a service export says about answers."""

    __slots__ = ("is_single", "wait_s")

    def __init__(self, is_single: bool = True, wait_s: float = 120.0) -> None:
        self.is_single = is_single
        """One answer ends the request; else they come until nothing has come for ``wait_s``."""
        self.wait_s = wait_s


class ReplyTable:
    """Reply subjects that an exporter's services may answer, and where the answers go. Bounded."""

    def __init__(self, rng: Random, now_s: Callable[[], float]) -> None:
        self._rng = rng
        self._now_s = now_s
        self.place = b""
        """Names this node in reply subjects, so that answers given on others come here; "" = there are no others."""
        self._waiting: dict[bytes, tuple[Router, bytes, AnswerRule, float, Measurement | None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, home: Router, reply: bytes, rule: AnswerRule, measured: Measurement | None = None) -> bytes:
        """A reply subject in the exporter's account that stands for ``reply`` in another."""
        now_s = self._now_s()
        waiting = self._waiting
        while waiting:
            first = next(iter(waiting))
            if len(waiting) < REPLIES_MAX and waiting[first][3] > now_s:
                break
            self._drop(first)
        self._count += 1
        letters = bytes(self._rng.choices(_ALPHABET, k=8))
        place = self.place + b"." if self.place else b""
        subject = b"%b%b%b.%d" % (REPLY_PREFIX, place, letters, self._count)
        waiting[subject] = (home, reply, rule, now_s + rule.wait_s, measured)
        if measured is not None:
            measured.waits(home, reply, rule.wait_s, partial(self.forget, subject))
        return subject

    def forget(self, subject: bytes) -> None:
        """Nobody will answer."""
        self._waiting.pop(subject, None)

    def _drop(self, subject: bytes) -> None:
        """Nobody has answered in time, or there is no room for waiting longer."""
        measured = self._waiting.pop(subject)[4]
        if measured is not None:
            measured.late()

    def resolve(self, subject: bytes) -> tuple[Router, bytes] | None:
        """Who waits for answers on this subject, and on which; None: nobody."""
        entry = self._waiting.get(subject)
        return (entry[0], entry[1]) if entry is not None and entry[3] > self._now_s() else None

    def forward(self, _home: Router, client: Sink | None, columns: Columns) -> int:
        """Messages on ``_R_.>``: what is waited for goes to where the request came from; how many were taken."""
        taken = 0
        for at, subject in enumerate(columns.subjects):
            entry = self._waiting.pop(subject, None)
            if entry is None:
                continue
            home, reply, rule, until_s, measured = entry
            now_s = self._now_s()
            if until_s <= now_s:
                if measured is not None:
                    measured.late()
                continue
            if measured is not None:
                if client is not None:
                    measured.answered(client)
                else:
                    measured.dropped()
            if not rule.is_single:
                self._waiting[subject] = (home, reply, rule, now_s + rule.wait_s, None)
            message = columns.part(at, at + 1)._replace(subjects=[reply])
            if client is not None and client.trace is not None:
                client.trace.imported(home.account, subject, reply)
                is_taken = unfollowed(client, client.trace, message, partial(home.forwarded, client))
            else:
                is_taken = home.forwarded(client, message)
            if is_taken:
                taken = at + 1
        return taken


# -- subjects -----------------------------------------------------------------------------------------------------


def numbered(local: str, subject: str) -> str:
    """A local subject whose ``*`` stand for those of the other, in order, with ``$n`` in their place."""
    if any(is_made(token) for token in local.split(".")):
        return local
    star = 0
    tokens = []
    for token in local.split("."):
        if token == "*":
            star += 1
            token = f"${star}"
        tokens.append(token)
    return ".".join(tokens)


def pattern_of(dest: str) -> str:
    """The pattern that all results of a destination match."""
    return ".".join("*" if is_made(token) else token for token in dest.split("."))


def is_made(token: str) -> bool:
    """Whether a destination's token depends on the source; ``$JS`` is just a word."""
    return (token.startswith("$") and token[1:].isdigit()) or token.startswith("{{")


def _inverted(subject: str, dest: str) -> str:
    """The destination of the transform from a pattern of ``dest`` back to ``subject``."""
    made = [token for token in dest.split(".") if is_made(token)]
    place = {int(token[1:]): at for at, token in enumerate(made) if token.startswith("$")}
    star = 0
    tokens = []
    for token in subject.split("."):
        if token == "*":
            star += 1
            token = f"${place[star] + 1}" if star in place else "*"
        tokens.append(token)
    return ".".join(tokens)
