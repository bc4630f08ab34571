"""What a user may publish and subscribe to: allow and deny lists of subject patterns.

Deny wins over allow; an allow list means that everything else is denied. A subscription must lie within an allow
entry and not within a deny entry; one that is wider than a deny entry is accepted, and what it must not see is
filtered when delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jetstore.model.subjects import is_subset

_DECISIONS_MAX = 4096


def _text(subject: bytes) -> str:
    """Subjects are bytes of any kind; for comparing tokens one character a byte does."""
    return subject.decode("latin-1")


class _Rules:
    """One allow list (None: everything) and one deny list; each entry is a subject and maybe a queue."""

    def __init__(self, allow: Iterable[str] | None, deny: Iterable[str]) -> None:
        self.allow = None if allow is None else [_entry(text) for text in allow]
        self.deny = [_entry(text) for text in deny]

    def permits(self, subject: bytes, queue: bytes) -> bool:
        subject_text, queue_text = _text(subject), _text(queue)
        if any(_covers(entry, subject_text, queue_text) for entry in self.deny):
            return False
        return self.allow is None or any(_covers(entry, subject_text, queue_text) for entry in self.allow)


def _entry(text: str) -> tuple[str, str]:
    parts = _text(text.encode()).split()
    if not 1 <= len(parts) <= 2:
        raise ValueError(f'permission "{text}" is not a subject or a subject and a queue')
    return parts[0], parts[1] if len(parts) == 2 else ""


def _covers(entry: tuple[str, str], subject: str, queue: str) -> bool:
    """Whether an entry speaks about this subject and queue; one without a queue speaks about all."""
    pattern, queue_pattern = entry
    if queue_pattern and not (queue and is_subset(queue, queue_pattern)):
        return False
    return is_subset(subject, pattern)


class Permissions:
    """The rules of one user. Decisions are remembered, bounded."""

    def __init__(
        self,
        publish_allow: Iterable[str] | None = None,
        publish_deny: Iterable[str] = (),
        subscribe_allow: Iterable[str] | None = None,
        subscribe_deny: Iterable[str] = (),
    ) -> None:
        """An allow list of None permits everything that is not denied; an empty one permits nothing."""
        self._publish = _Rules(publish_allow, publish_deny)
        self._subscribe = _Rules(subscribe_allow, subscribe_deny)
        self._denied_subjects = [of for of, queue in self._subscribe.deny if not queue]
        self.filters_deliveries = bool(self._denied_subjects)
        self._may_publish: dict[bytes, bool] = {}
        self._may_receive: dict[bytes, bool] = {}

    def may_publish(self, subject: bytes) -> bool:
        """Whether a message may be published on this subject."""
        return _remember(self._may_publish, subject, lambda: self._publish.permits(subject, b""))

    def may_subscribe(self, subject: bytes, queue: bytes) -> bool:
        """Whether this subscription may be made."""
        return self._subscribe.permits(subject, queue)

    def may_receive(self, subject: bytes) -> bool:
        """Whether a message on this subject may be delivered to a subscription wider than a deny entry."""
        return _remember(
            self._may_receive, subject, lambda: not any(is_subset(_text(subject), of) for of in self._denied_subjects)
        )


def _remember(decisions: dict[bytes, bool], subject: bytes, decide: Callable[[], bool]) -> bool:
    decision = decisions.get(subject)
    if decision is None:
        if len(decisions) >= _DECISIONS_MAX:
            decisions.clear()
        decision = decisions[subject] = decide()
    return decision
