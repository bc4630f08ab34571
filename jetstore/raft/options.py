"""Bounds of one group, in ticks, bytes and entries. Every queue of the core ends at one of them."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RaftOptions:
    """At each bound the stated behaviour, never a surprise."""

    election_ticks: int = 10
    """A follower that hears nothing for this long, plus up to as long again, stands for election; a leader that hears
    no quorum for this long steps down; a transfer takes no longer."""
    heartbeat_ticks: int = 1
    """Between two heartbeats of a leader."""
    tells_commit_at_once: bool = True
    """False: what is committed is told with the next append or heartbeat, not by a message of its own; except the start
    of a term and a configuration."""
    append_bytes_max: int = MIB
    """Entries in one APPEND; or one entry."""
    inflight_appends_max: int = 64
    """Unanswered APPENDs per member; above: nothing is sent to it until it answers."""
    inflight_bytes_max: int = 16 * MIB
    """The same in bytes."""
    unapplied_bytes_max: int = 64 * MIB
    """Entries of the leader that are not committed and applied; above: proposals are refused (NotNow)."""
    reads_max: int = 10_000
    """Read-index requests under way; above: answered at once with "ask again"."""
    promote_lag_entries: int = 1_024
    """A learner further behind than this is not promoted (NotNow)."""
    faulty_campaign_timeouts: int = 3
    """Election timeouts without a leader before a member with unreadable entries stands for election itself."""
    repair_batch: int = 16
    """Unreadable entries asked about at once."""

    def __post_init__(self) -> None:
        assert 0 < self.heartbeat_ticks < self.election_ticks, "a leader must be heard between two timeouts"
        assert self.inflight_appends_max > 0
        assert self.inflight_bytes_max >= self.append_bytes_max > 0
        assert self.faulty_campaign_timeouts > 0
        assert self.repair_batch > 0
