"""Tells the engine when interest in a deliver subject may have come or gone."""

from __future__ import annotations

from collections.abc import Callable

from server.route.sublist import has_wildcard, pattern_matches


class _Watcher:
    """One callback; ``is_due`` while a call is on its way, so that a burst of changes is one call."""

    __slots__ = ("callback", "is_closed", "is_due", "owner", "target")

    def __init__(self, owner: InterestWatch, target: bytes, callback: Callable[[bool], None]) -> None:
        self.owner = owner
        self.target = target
        self.callback = callback
        self.is_due = False
        self.is_closed = False

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.owner.discard(self)


class InterestWatch:
    """Watchers by literal target. Calls back from the loop, never from inside the change."""

    def __init__(
        self, call_soon: Callable[[Callable[[], None]], object], has_interest: Callable[[bytes], bool]
    ) -> None:
        self._call_soon = call_soon
        self._has_interest = has_interest
        self._by_target: dict[bytes, dict[_Watcher, None]] = {}
        self._due: list[_Watcher] = []

    def add(self, target: bytes, callback: Callable[[bool], None]) -> _Watcher:
        """Watch a target until the handle is closed."""
        watcher = _Watcher(self, target, callback)
        self._by_target.setdefault(target, {})[watcher] = None
        return watcher

    def discard(self, watcher: _Watcher) -> None:
        """Forget a watcher."""
        watchers = self._by_target[watcher.target]
        del watchers[watcher]
        if not watchers:
            del self._by_target[watcher.target]

    def changed(self, pattern: bytes) -> None:
        """A subscription to this pattern came or went."""
        if not self._by_target:
            return
        if has_wildcard(pattern):
            matches = pattern_matches(pattern)
            for target in self._by_target:
                if matches(target):
                    self._mark(target)
        elif pattern in self._by_target:
            self._mark(pattern)

    def _mark(self, target: bytes) -> None:
        for watcher in self._by_target[target]:
            if not watcher.is_due:
                watcher.is_due = True
                if not self._due:
                    self._call_soon(self._run)
                self._due.append(watcher)

    def _run(self) -> None:
        due, self._due = self._due, []
        for watcher in due:
            watcher.is_due = False
            if not watcher.is_closed:
                watcher.callback(self._has_interest(watcher.target))
