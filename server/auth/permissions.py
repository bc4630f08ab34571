"""What a user may publish and subscribe to: allow and deny lists of subject patterns, and answers to requests.

Deny wins over allow; an allow list means that everything else is denied. A subscription must lie within an allow
entry and not within a deny entry; one that is wider than a deny entry is accepted, and what it must not see is
filtered when delivered. An entry may name a queue after its subject: then it speaks about members of that queue only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from jetstore.model.subjects import is_subset

_DECISIONS_MAX = 4096
_DOT = 46
REPLIES_MAX = 4096
"""Reply subjects of one connection that may be answered; above, the oldest is forgotten."""


def _text(subject: bytes) -> str:
    """Subjects are bytes of any kind; for comparing tokens one character a byte does."""
    return subject.decode("latin-1")


def _literal(subject: bytes) -> str:
    """A published subject for comparing with patterns: wildcards in it are nothing but characters."""
    text = _text(subject)
    if b"*" in subject or b">" in subject:
        return text.replace("*", "\x00*").replace(">", "\x00>")
    return text


def _has_empty_token(subject: bytes) -> bool:
    return b".." in subject or not subject or subject[0] == _DOT or subject[-1] == _DOT


_Key = TypeVar("_Key")
Entry = tuple[str, str]
"""Subject pattern, queue pattern ("" = none)."""


class _Rules:
    """One allow list (None: everything) and one deny list."""

    def __init__(self, allow: Iterable[str] | None, deny: Iterable[str]) -> None:
        self.allow = None if allow is None else [_entry(text) for text in allow]
        self.deny = [_entry(text) for text in deny]

    def permits(self, subject: str, queue: str) -> bool:
        if any(_covers(entry, subject, queue) for entry in self.deny):
            return False
        if self.allow is None:
            return True
        about = [queues for pattern, queues in self.allow if is_subset(subject, pattern)]
        if queue and any(about):
            # As in nats-server: where some entry names a queue, entries without one no longer admit any queue.
            return any(queues and is_subset(queue, queues) for queues in about)
        return "" in about


def _entry(text: str) -> Entry:
    parts = _text(text.encode()).split()
    if not 1 <= len(parts) <= 2:
        raise ValueError(f'permission "{text}" is not a subject or a subject and a queue')
    return parts[0], parts[1] if len(parts) == 2 else ""


def _covers(entry: Entry, subject: str, queue: str) -> bool:
    """Whether an entry speaks about this subject and queue; one without a queue speaks about all."""
    pattern, queue_pattern = entry
    if queue_pattern and not (queue and is_subset(queue, queue_pattern)):
        return False
    return is_subset(subject, pattern)


@dataclass(frozen=True, slots=True)
class ResponseRule:
    """``allow_responses``: how often and how long the reply subject of a delivered message may be published to."""

    max_messages: int = 1
    """≤ 0: any number."""
    expires_s: float = 120.0
    """≤ 0: for ever."""


class Permissions:
    """The rules of one user. Decisions are remembered, bounded."""

    def __init__(
        self,
        publish_allow: Iterable[str] | None = None,
        publish_deny: Iterable[str] = (),
        subscribe_allow: Iterable[str] | None = None,
        subscribe_deny: Iterable[str] = (),
        responses: ResponseRule | None = None,
    ) -> None:
        """An allow list of None permits everything that is not denied; an empty one permits nothing.

        With ``responses`` and no publish rules at all, nothing but answers may be published.
        """
        if responses is not None and publish_allow is None:
            publish_allow = []
        self._publish = _Rules(publish_allow, publish_deny)
        self._subscribe = _Rules(subscribe_allow, subscribe_deny)
        self.responses = responses
        self.filters_deliveries = bool(self._subscribe.deny)
        self._may_publish: dict[bytes, bool] = {}
        self._may_receive: dict[tuple[bytes, bytes], bool] = {}

    def described(self) -> dict[str, object]:
        """The rules as ``$SYS.REQ.USER.INFO`` shows them."""
        shown: dict[str, object] = {}
        for name, rules in (("publish", self._publish), ("subscribe", self._subscribe)):
            lists = {"allow": rules.allow, "deny": rules.deny}
            shown[name] = {
                kind: [f"{pattern} {queue}".strip() for pattern, queue in entries]
                for kind, entries in lists.items()
                if entries
            }
        if self.responses is not None:
            rule = self.responses
            shown["responses"] = {"max": rule.max_messages, "ttl": int(rule.expires_s * 1e9)}
        return shown

    def may_publish(self, subject: bytes) -> bool:
        """Whether a message may be published on this subject."""
        return _remember(self._may_publish, subject, lambda: self._publish_permits(subject))

    def _publish_permits(self, subject: bytes) -> bool:
        if _has_empty_token(subject):  # no pattern matches it
            return self._publish.allow is None
        return self._publish.permits(_literal(subject), "")

    def may_subscribe(self, subject: bytes, queue: bytes) -> bool:
        """Whether this subscription may be made."""
        return self._subscribe.permits(_text(subject), _text(queue))

    def may_receive(self, subject: bytes, queue: bytes = b"") -> bool:
        """Whether a message on this subject may go to a wider subscription (of that queue)."""
        return _remember(self._may_receive, (subject, queue), lambda: not self._is_denied(subject, queue))

    def _is_denied(self, subject: bytes, queue: bytes) -> bool:
        subject_text, queue_text = _literal(subject), _text(queue)
        return any(_covers(entry, subject_text, queue_text) for entry in self._subscribe.deny)


class Responses:
    """The reply subjects that one connection has been shown and may answer on. Bounded, times are loop seconds."""

    __slots__ = ("_now_s", "_rule", "_seen")

    def __init__(self, rule: ResponseRule, now_s: Callable[[], float]) -> None:
        self._rule = rule
        self._now_s = now_s
        self._seen: dict[bytes, tuple[float, int]] = {}
        """When it was shown, answers since."""

    def delivered(self, replies: Sequence[bytes]) -> None:
        """Messages with these reply subjects (b"" = none) went to the connection."""
        now_s = self._now_s()
        seen = self._seen
        for reply in replies:
            if reply:
                seen.pop(reply, None)
                seen[reply] = (now_s, 0)
        while len(seen) > REPLIES_MAX:
            del seen[next(iter(seen))]

    def may_answer(self, subject: bytes) -> bool:
        """Whether a message may be published on this reply subject now; counts it."""
        shown = self._seen.get(subject)
        if shown is None:
            return False
        since_s, answers = shown
        rule = self._rule
        is_late = 0 < rule.expires_s < self._now_s() - since_s
        if is_late or 0 < rule.max_messages <= answers:
            del self._seen[subject]
            return False
        self._seen[subject] = (since_s, answers + 1)
        return True


def _remember(decisions: dict[_Key, bool], about: _Key, decide: Callable[[], bool]) -> bool:
    decision = decisions.get(about)
    if decision is None:
        if len(decisions) >= _DECISIONS_MAX:
            decisions.clear()
        decision = decisions[about] = decide()
    return decision
