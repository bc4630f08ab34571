"""What a leader knows of one member, and what it may send to it now.

::

                 first acknowledgement                      needs what the leader no longer has
    PROBE ───────────────────────────────▶ REPLICATE ──────────────┐
      ▲ ▲                                     │                    ▼
      │ └──── refused, link broken, restarted ┘  ◀──────────── SNAPSHOT
      └─────── checkpoint installed, or given up ──────────────────┘

PROBE: one APPEND at a time, to find where the logs agree. REPLICATE: ``next_index`` runs ahead of the answers, bounded
by count and bytes. SNAPSHOT: nothing but heartbeats and the offer of a checkpoint. Source: etcd's raft, design.md.

``match_index`` is what this member holds durably and readably of the leader's log; only it counts for commit.
``acked_index`` is the highest it ever said in this term: if its evidenced last index falls below, it has lost what it
promised (amnesia) and is fenced; if only the match falls, bytes are unreadable (damage) and are sent again.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from jetstore.raft.options import RaftOptions
from jetstore.raft.ready import ProgressStatus
from jetstore.types import RaftIndex


class ProgressState(Enum):
    """How appends are sent to a member."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One member, as one leader sees it within one term."""

    __slots__ = (
        "_beat_match_index",
        "_inflight",
        "_options",
        "acked_index",
        "boot",
        "commit_sent",
        "inflight_bytes",
        "is_active",
        "is_damaged",
        "is_fenced",
        "is_offered",
        "is_paused",
        "is_stalled",
        "match_index",
        "next_index",
        "resent_sequence",
        "sequence",
        "snapshot_index",
        "state",
        "was_active",
    )

    def __init__(self, next_index: RaftIndex, options: RaftOptions) -> None:
        """A member of which nothing is known yet."""
        self._options = options
        self.state = ProgressState.PROBE
        self.match_index = RaftIndex(0)
        self.acked_index = RaftIndex(0)
        self.next_index = next_index
        self.commit_sent = RaftIndex(0)
        self.boot = -1
        self.sequence = -1
        """The highest of the leader's requests that it has answered."""
        self.is_active = False
        self.was_active = False
        self.is_fenced = False
        self.is_damaged = False
        self.is_paused = False
        """PROBE: one APPEND is under way."""
        self.is_offered = False
        """A checkpoint was offered since the last heartbeat was due."""
        self.is_stalled = False
        """REPLICATE: nothing came back between two answered heartbeats, although something is under way: ask."""
        self._beat_match_index = RaftIndex(0)
        self.resent_sequence = 0
        """An answer to this request or a later one, and still unreadable: what was sent again is lost, too."""
        self.snapshot_index = RaftIndex(0)
        self._inflight: deque[tuple[RaftIndex, int]] = deque()
        self.inflight_bytes = 0

    # -- what may be sent -----------------------------------------------------------------------------------------

    @property
    def may_send(self) -> bool:
        """Whether an APPEND may go out now."""
        if self.is_fenced:
            return False
        if self.is_stalled:
            return True
        if self.state is ProgressState.PROBE:
            return not self.is_paused
        if self.state is ProgressState.SNAPSHOT:
            return False
        options = self._options
        return len(self._inflight) < options.inflight_appends_max and self.inflight_bytes < options.inflight_bytes_max

    @property
    def is_alive(self) -> bool:
        """Heard from in this check-quorum interval or the last one, and trusted."""
        return (self.is_active or self.was_active) and not self.is_fenced

    @property
    def inflight_count(self) -> int:
        """Unanswered APPENDs with entries."""
        return len(self._inflight)

    def is_told(self, commit_index: int) -> bool:
        """Whether an APPEND without entries, which says that ``commit_index`` is committed, would be of no use."""
        return self.state is ProgressState.REPLICATE and not self.is_stalled and self.commit_sent >= commit_index

    def sent(self, last_index: RaftIndex, size_bytes: int) -> None:
        """An APPEND up to ``last_index`` went out (``next_index - 1``: it had no entries)."""
        if self.state is ProgressState.PROBE:
            self.is_paused = True
        elif last_index >= self.next_index:
            self.next_index = RaftIndex(last_index + 1)
            self._inflight.append((last_index, size_bytes))
            self.inflight_bytes += size_bytes

    # -- what it said ---------------------------------------------------------------------------------------------

    def is_news(self, boot: int, sequence: int) -> bool:
        """Note (boot, sequence) of an answer; whether it was certainly given after every answer seen before.

        Only news can tell a loss: what was sent before, and arrives late, is older and smaller by nature.
        """
        if (boot, sequence) <= (self.boot, self.sequence):
            return False
        self.boot, self.sequence = boot, sequence
        return True

    def acked(self, match_index: RaftIndex) -> bool:
        """It holds everything up to here. Whether that is more than was known."""
        self.is_paused = False
        if match_index < self.match_index:
            return False
        is_more = match_index > self.match_index
        if is_more:
            self.is_stalled = False
        self.match_index = match_index
        self.acked_index = max(self.acked_index, match_index)
        self.next_index = max(self.next_index, RaftIndex(match_index + 1))
        inflight = self._inflight
        while inflight and inflight[0][0] <= match_index:
            self.inflight_bytes -= inflight.popleft()[1]
        return is_more

    def refused(self, prev_index: RaftIndex, next_hint: RaftIndex) -> bool:
        """It does not hold the entry before those that were sent; try from ``next_hint``. False if that is old news."""
        if self.state is ProgressState.REPLICATE:
            if prev_index <= self.match_index:
                return False
            self.probe()
            return True
        if prev_index != self.next_index - 1:
            return False
        self.next_index = RaftIndex(max(min(prev_index, next_hint), self.match_index + 1))
        self.is_paused = 0 < self.match_index == prev_index  # it refuses what it acknowledged: ask after a heartbeat
        return True

    def beat(self) -> None:
        """A heartbeat was answered while appends are under way: are they lost?"""
        self.is_stalled = self.match_index == self._beat_match_index
        self._beat_match_index = self.match_index

    def damaged(self, match_index: RaftIndex) -> None:
        """It still has what it acknowledged, but cannot read it beyond ``match_index``."""
        self.is_damaged = True
        self.match_index = match_index
        self.probe()

    # -- states ---------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Find out again where the logs agree; what is under way is forgotten."""
        self._enter(ProgressState.PROBE)
        self.next_index = RaftIndex(self.match_index + 1)

    def probe_from(self, next_index: RaftIndex) -> None:
        """The same, starting where it says it is; its answer proves it."""
        self._enter(ProgressState.PROBE)
        self.next_index = next_index

    def replicate(self) -> None:
        """The logs agree up to ``match_index``: stream."""
        self._enter(ProgressState.REPLICATE)
        self.next_index = RaftIndex(self.match_index + 1)

    def snapshot(self, index: RaftIndex) -> None:
        """It needs a checkpoint at or above ``index`` first."""
        self._enter(ProgressState.SNAPSHOT)
        self.snapshot_index = index

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.is_paused = self.is_stalled = False
        self.snapshot_index = RaftIndex(0)
        self._inflight.clear()
        self.inflight_bytes = 0

    def status(self) -> ProgressStatus:
        """A copy for people."""
        return ProgressStatus(
            self.state.value,
            self.match_index,
            self.next_index,
            self.is_active or self.was_active,
            self.is_fenced,
            self.is_damaged,
        )
