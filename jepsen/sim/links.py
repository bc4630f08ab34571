"""The links between simulated machines: who reaches whom, and how badly. One ``Link`` per ordered pair of machines.

What a link may do depends on what travels over it. A connection is a byte stream: it may be late, slow, stuck, reset or
half-open, never missing a byte in the middle. On connections to a machine's *cluster port* whole frames may also be
lost, doubled or overtaken, as if each frame were a message of its own: what replicates must live with that.
A cut holds bytes back, as TCP does: they arrive some time after the cut has healed, or the connection is reset then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Pair = tuple[str, str]


@dataclass(slots=True)
class Link:
    """One direction between two machines."""

    is_cut: bool = False
    delay_s: tuple[float, float] = (0.0, 0.0)
    """Added to each segment or frame; its spread is the jitter."""
    bytes_per_s: float = 0.0
    """0 = as fast as you like."""
    loss: float = 0.0
    """Chance that a frame never arrives."""
    double: float = 0.0
    """Chance that a frame arrives twice."""
    overtake: float = 0.0
    """Chance that a frame arrives later than what was sent after it."""
    damage: float = 0.0
    """Chance that a bit of a frame is flipped."""
    busy_until_s: float = 0.0

    def passes_at(self, now_s: float, size_bytes: int, jitter: float) -> float:
        """When what is sent now is through; ``jitter`` from 0 to 1."""
        low, high = self.delay_s
        if self.bytes_per_s:
            self.busy_until_s = now_s = max(now_s, self.busy_until_s) + size_bytes / self.bytes_per_s
        return now_s + low + (high - low) * jitter

    @property
    def harms_frames(self) -> bool:
        return self.loss > 0 or self.double > 0 or self.overtake > 0


FINE = Link()
"""How a link is as long as nobody touches it; never changed."""


class Links:
    """All links of a world. Hosts that it was never told about reach each other."""

    def __init__(self) -> None:
        self.on_heal: Callable[[], None] = lambda: None
        """Called when bytes that were held back may travel again."""
        self.counts: dict[str, int] = {}
        """What really happened to traffic, by kind."""
        self._links: dict[Pair, Link] = {}

    def get(self, source: str, target: str) -> Link:
        """The link as it is now; not to be changed."""
        return self._links.get((source, target), FINE) if self._links else FINE

    def is_open(self, one: str, other: str) -> bool:
        """Whether both directions work."""
        return not (self.get(one, other).is_cut or self.get(other, one).is_cut)

    def count(self, what: str) -> None:
        """Remember that it happened."""
        self.counts[what] = self.counts.get(what, 0) + 1

    # -- faults ---------------------------------------------------------------------------------------------------

    def change(self, source: str, target: str) -> Link:
        """The link, to be changed."""
        return self._links.setdefault((source, target), Link())

    def cut(self, source: str, target: str) -> None:
        """Nothing arrives in this direction any more."""
        if source != target:
            self.change(source, target).is_cut = True

    def partition(self, *sides: Iterable[str]) -> None:
        """Machines on different sides do not reach each other."""
        groups = [tuple(side) for side in sides]
        for number, one in enumerate(groups):
            for other in groups[number + 1 :]:
                for a in one:
                    for b in other:
                        self.cut(a, b)
                        self.cut(b, a)

    def only(self, sees: Mapping[str, Iterable[str]]) -> None:
        """Each machine reaches exactly these (both directions need both to agree)."""
        seen = {host: frozenset(others) for host, others in sees.items()}
        for a in seen:
            for b in seen:
                if a != b and (b not in seen[a] or a not in seen[b]):
                    self.cut(a, b)

    def join(self) -> None:
        """No cuts any more; what else is wrong stays."""
        for link in self._links.values():
            link.is_cut = False
        self.on_heal()

    def heal(self) -> None:
        """All links are as new."""
        self._links.clear()
        self.on_heal()

    def mend(self, source: str, target: str) -> None:
        """This direction is as new."""
        self._links.pop((source, target), None)
        self.on_heal()
