"""Which subscriptions match a subject: the sublist of one account.

Literal subscriptions are a flat dictionary, wildcard ones a trie by token. Three bounded caches make matching cheap:

* by subject, whole results; a literal subscription that comes or goes touches one entry, a wildcard one clears it;
* by *shape*, for subjects seen once (inboxes, acknowledgements): the trie tells how many leading tokens (``depth``)
  can make a difference and up to which number of tokens (``width``) the count does; subjects that agree in these have
  the same wildcard result;
* wildcard results are interned, so that equal matches of different subjects are one object and a run of messages
  need not be cut between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from server.route.subscription import Subscription

if TYPE_CHECKING:
    from server.route.remote import Plan

_CACHED_SUBJECTS = 16_384
_CACHED_SHAPES = 16_384
_DOT = 46


class Match:
    """The subscriptions that match a subject. Immutable; compared by identity."""

    __slots__ = ("bridges", "internal", "is_empty", "plain", "plan", "queues", "remotes")

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        """``subscriptions`` in the order they were made."""
        self.plain = tuple(sub for sub in subscriptions if sub.sink is not None and not sub.queue)
        self.bridges = tuple(sub for sub in subscriptions if sub.bridge is not None)
        self.internal = tuple(sub for sub in subscriptions if sub.handler is not None)
        self.remotes = tuple(sub for sub in subscriptions if sub.remote is not None)
        self.plan: Plan | None = None
        """Of whom among the remote ones gets what: made when it is asked for first (``remote.py``)."""
        queues: dict[bytes, list[Subscription]] = {}
        for sub in subscriptions:
            if sub.queue and sub.remote is None:
                queues.setdefault(sub.queue, []).append(sub)
        self.queues = tuple((name, tuple(members)) for name, members in queues.items())
        """Members of one queue name on different patterns are one group."""
        self.is_empty = not subscriptions

    @property
    def size(self) -> int:
        """How many they are; a queue group counts with all its members."""
        members = sum(len(members) for _, members in self.queues)
        return len(self.plain) + len(self.internal) + len(self.bridges) + len(self.remotes) + members


NO_MATCH = Match(())


class _Node:
    """One token of the wildcard patterns."""

    __slots__ = ("depth_below", "levels_below", "literals", "rest", "star", "subscriptions")

    def __init__(self) -> None:
        self.depth_below = 0
        """At most so many of the tokens that follow can make a difference by their content."""
        self.levels_below = 0
        """At most so many levels of nodes are below. Both may be too large once patterns were removed: still exact."""
        self.literals: dict[bytes, _Node] = {}
        self.star: _Node | None = None
        self.rest: dict[Subscription, None] = {}
        """Patterns that go on with ``>`` here."""
        self.subscriptions: dict[Subscription, None] = {}
        """Patterns that end here."""

    def is_unused(self) -> bool:
        return not (self.literals or self.star or self.rest or self.subscriptions)


class _Shape:
    """What decides the wildcard result of subjects that begin with the same two tokens."""

    __slots__ = ("by_key", "depth", "width")

    def __init__(self, depth: int, width: int) -> None:
        self.depth = depth
        """Leading tokens whose content matters."""
        self.width = width
        """Token counts from this one on make no difference."""
        self.by_key: dict[tuple[bytes, int], Match] = {}


def _has_empty_token(subject: bytes) -> bool:
    return not subject or subject[0] == _DOT or subject[-1] == _DOT or subject.find(b"..") >= 0


def has_wildcard(subject: bytes) -> bool:
    """Whether a valid subscription subject has a ``*`` or ``>`` token."""
    if 42 not in subject and 62 not in subject:
        return False
    return any(token in (b"*", b">") for token in subject.split(b"."))


class Sublist:
    """Subscriptions by subject pattern. The caller has checked the subjects of subscriptions."""

    def __init__(self) -> None:
        self._literals: dict[bytes, dict[Subscription, None]] = {}
        self._root = _Node()
        self._count = 0
        self._made = 0
        self._by_subject: dict[bytes, Match] = {}
        self._shapes: dict[bytes, _Shape] = {}
        self._shape_entries = 0
        self._interned: dict[tuple[Subscription, ...], Match] = {}
        self.inserts = 0
        self.removes = 0
        self.observer: Callable[[Subscription, int], None] | None = None
        """Told of each that comes (+1) and goes (-1), so that other nodes hear of it."""

    def __len__(self) -> int:
        return self._count

    def cached(self) -> int:
        """Entries in the subject cache."""
        return len(self._by_subject)

    def fanout(self) -> tuple[int, float]:
        """The most, and the average number of subscriptions that a subject in the cache reaches."""
        sizes = [match.size for match in self._by_subject.values()]
        return max(sizes, default=0), sum(sizes) / len(sizes) if sizes else 0.0

    def all(self) -> Iterator[Subscription]:
        """Every subscription, in no order."""
        for found in self._literals.values():
            yield from found
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            yield from node.subscriptions
            yield from node.rest
            nodes += node.literals.values()
            if node.star is not None:
                nodes.append(node.star)

    # -- change -----------------------------------------------------------------------------------------------------

    def insert(self, subscription: Subscription) -> None:
        """Add a subscription; it matches from now on."""
        self._made += 1
        subscription.order = self._made
        self._count += 1
        self.inserts += 1
        if self.observer is not None:
            self.observer(subscription, 1)
        subject = subscription.subject
        if not has_wildcard(subject):
            self._literals.setdefault(subject, {})[subscription] = None
            self._by_subject.pop(subject, None)
            return
        node = self._root
        tokens = subject.split(b".")
        path = [node]
        for token in tokens:
            if token == b">":
                node.rest[subscription] = None
                break
            if token == b"*":
                if node.star is None:
                    node.star = _Node()
                node = node.star
            else:
                child = node.literals.get(token)
                if child is None:
                    child = node.literals[token] = _Node()
                node = child
            path.append(node)
        else:
            node.subscriptions[subscription] = None
        levels = len(path) - 1
        depth = max((at + 1 for at in range(levels) if tokens[at] != b"*"), default=0)
        for level, node in enumerate(path):
            node.depth_below = max(node.depth_below, depth - level)
            node.levels_below = max(node.levels_below, levels - level)
        self._forget()

    def remove(self, subscription: Subscription) -> None:
        """Take a subscription out. It must be in."""
        self._count -= 1
        self.removes += 1
        if self.observer is not None:
            self.observer(subscription, -1)
        subject = subscription.subject
        if not has_wildcard(subject):
            holders = self._literals[subject]
            del holders[subscription]
            if not holders:
                del self._literals[subject]
            self._by_subject.pop(subject, None)
            return
        path: list[tuple[_Node, bytes]] = []
        node = self._root
        for token in subject.split(b"."):
            if token == b">":
                del node.rest[subscription]
                break
            path.append((node, token))
            child = node.star if token == b"*" else node.literals[token]
            assert child is not None
            node = child
        else:
            del node.subscriptions[subscription]
        for parent, token in reversed(path):
            child = parent.star if token == b"*" else parent.literals[token]
            assert child is not None
            if not child.is_unused():
                break
            if token == b"*":
                parent.star = None
            else:
                del parent.literals[token]
        self._forget()

    def _forget(self) -> None:
        self._by_subject.clear()
        self._shapes.clear()
        self._shape_entries = 0
        self._interned.clear()

    # -- match ------------------------------------------------------------------------------------------------------

    def match(self, subject: bytes) -> Match:
        """Everything that matches a published subject (taken literally; with an empty token: nothing)."""
        found = self._by_subject.get(subject)
        if found is not None:
            return found
        if _has_empty_token(subject):
            return NO_MATCH
        found = self._match_wildcards(subject)
        literal = self._literals.get(subject)
        if literal:
            merged = [*literal, *found.plain, *found.internal, *found.bridges, *found.remotes]
            for _, members in found.queues:
                merged += members
            merged.sort(key=_order_of)
            found = Match(merged)
        if len(self._by_subject) >= _CACHED_SUBJECTS:
            self._by_subject.clear()
        self._by_subject[subject] = found
        return found

    def match_all(self, subjects: Sequence[bytes]) -> Match | None:
        """The match all these subjects share, found without looking at each; None: not known to be one.

        A few passes in C over the joined subjects stand for one look-up per subject.
        """
        first = subjects[0]
        count = len(subjects)
        if count == 1 or subjects.count(first) == count:
            return self.match(first)
        found = self._by_subject.get(first)
        if found is not None and all(self._by_subject.get(subject) is found for subject in subjects):
            return found
        if _has_empty_token(first):
            return None
        shape = self._shape(first)
        parts = first.split(b".", shape.depth)
        if len(parts) <= shape.depth:
            return None
        rest = parts.pop()
        prefix = b".".join([*parts, b""])
        joined = b"\n".join(subjects)
        if joined.count(b"\n") != count - 1 or (prefix and joined.count(b"\n" + prefix) != count - 1):
            return None
        if shape.width > shape.depth + 1:
            # The number of tokens counts: there must be exactly one more than the prefix has.
            if b"." in rest or joined.count(b".") != count * shape.depth or prefix in subjects:
                return None
        elif b".".join([b"", *subjects, b""]).find(b"..") >= 0:
            return None
        if self._literals and not self._literals.keys().isdisjoint(subjects):
            return None
        return self._match_wildcards(first)

    def match_each(self, subjects: Sequence[bytes]) -> list[Match]:
        """The match of each subject."""
        get = self._by_subject.get
        return [get(subject) or self.match(subject) for subject in subjects]

    def _match_wildcards(self, subject: bytes) -> Match:
        """The wildcard subscriptions that match a subject without empty tokens."""
        shape = self._shape(subject)
        depth = shape.depth
        if depth <= 0:
            prefix = b""
        else:
            parts = subject.split(b".", depth)
            prefix = subject if len(parts) <= depth else subject[: -len(parts[depth])]
        key = (prefix, min(subject.count(b".") + 1, shape.width))
        found = shape.by_key.get(key)
        if found is None:
            found = self._intern(self._walk(subject.split(b".")))
            if self._shape_entries >= _CACHED_SHAPES:
                self._shapes.clear()
                self._shape_entries = 0
                return found
            shape.by_key[key] = found
            self._shape_entries += 1
        return found

    def _shape(self, subject: bytes) -> _Shape:
        second = subject.find(b".", subject.find(b".") + 1)
        head = subject if second < 0 else subject[:second]
        shape = self._shapes.get(head)
        if shape is None:
            shape = self._measure(head.split(b"."))
            if len(self._shapes) >= _CACHED_SHAPES:
                self._shapes.clear()
                self._shape_entries = 0
            self._shapes[head] = shape
        return shape

    def _measure(self, head: list[bytes]) -> _Shape:
        """The shape of subjects that begin with these tokens (one or two; two may go on, one is all there is)."""
        depth = width = 0
        frontier = [self._root]
        for level, token in enumerate(head):
            following: list[_Node] = []
            for node in frontier:
                width = max(width, level + 1)
                if node.literals:
                    depth = level + 1
                    child = node.literals.get(token)
                    if child is not None:
                        following.append(child)
                if node.star is not None:
                    following.append(node.star)
            frontier = following
        for node in frontier:
            width = max(width, len(head) + node.levels_below + 1)
            if node.depth_below:
                depth = max(depth, len(head) + node.depth_below)
        return _Shape(depth, width)

    def _walk(self, tokens: list[bytes]) -> list[Subscription]:
        found: list[Subscription] = []
        frontier = [self._root]
        for token in tokens:
            following: list[_Node] = []
            for node in frontier:
                found.extend(node.rest)
                child = node.literals.get(token)
                if child is not None:
                    following.append(child)
                if node.star is not None:
                    following.append(node.star)
            frontier = following
            if not frontier:
                return found
        for node in frontier:
            found.extend(node.subscriptions)
        return found

    def _intern(self, subscriptions: list[Subscription]) -> Match:
        if not subscriptions:
            return NO_MATCH
        subscriptions.sort(key=_order_of)
        key = tuple(subscriptions)
        found = self._interned.get(key)
        if found is None:
            if len(self._interned) >= _CACHED_SHAPES:
                self._interned.clear()
            found = self._interned[key] = Match(key)
        return found


def _order_of(subscription: Subscription) -> int:
    return subscription.order


def pattern_matches(pattern: bytes) -> Callable[[bytes], bool]:
    """A test whether a subject without empty tokens matches this subscription subject."""
    if not has_wildcard(pattern):
        return pattern.__eq__
    tokens = pattern.split(b".")
    is_open = tokens[-1] == b">"
    if is_open:
        tokens.pop()
    fixed = [(at, token) for at, token in enumerate(tokens) if token != b"*"]

    def matches(subject: bytes) -> bool:
        parts = subject.split(b".")
        if len(parts) <= len(tokens) if is_open else len(parts) != len(tokens):
            return False
        return all(parts[at] == token for at, token in fixed)

    return matches
