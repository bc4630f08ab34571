"""What a leader sends to the others, and what their answers mean.

Appends are made when messages are taken, not when entries are proposed: whatever came together goes together, and
several are under way to each member. One that falls behind, or is silent, holds up nobody else. Source: Raft paper
§5.3, thesis §10.2; etcd's raft for the three states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.raft.log import Entry
from jetstore.raft.message import Message, MessageKind
from jetstore.raft.progress import Progress, ProgressState
from jetstore.raft.ready import CheckpointWanted
from jetstore.types import RaftIndex, Term

if TYPE_CHECKING:
    from jetstore.raft.core import RaftCore
    from jetstore.raft.leader import Leader


class Replication:
    """A leader's conversation with every other member."""

    def __init__(self, core: RaftCore, leader: Leader) -> None:
        self.core = core
        self.leader = leader
        self.sequence = 0
        """Number of the last request of this term."""

    # -- out ------------------------------------------------------------------------------------------------------

    def send_heartbeats(self) -> None:
        """Tell everybody that this leader is alive."""
        for member, progress in self.leader.progress.items():
            self.send_heartbeat(member, progress)

    def send_heartbeat(self, member: int, progress: Progress, *, is_quiescent: bool = False) -> None:
        """One heartbeat; ``commit`` is capped at what the member holds."""
        core = self.core
        self.sequence += 1
        commit = min(core.log.committed_index, progress.match_index)
        progress.commit_sent = max(progress.commit_sent, commit)
        core.post(
            Message(
                MessageKind.HEARTBEAT,
                core.member,
                member,
                core.term,
                commit=commit,
                sequence=self.sequence,
                is_quiescent=is_quiescent,
                boot=core.boot,
            )
        )

    def send_appends(self) -> None:
        """Everything that may go out now; nothing from the first unreadable entry on.

        Besides having no bytes, a leader may yet drop it and all later ones: what a follower was told it has in common
        with this leader would shrink within a term, and a late acknowledgement count for what comes to stand there.
        """
        log = self.core.log
        last_index = log.last_index if log.faulty_index is None else RaftIndex(log.faulty_index - 1)
        for member, progress in self.leader.progress.items():
            while progress.may_send and self._send_append(member, progress, last_index):
                pass
            if progress.state is ProgressState.SNAPSHOT and not (progress.is_paused or progress.is_offered):
                self._offer_checkpoint(member, progress)

    def _send_append(self, member: int, progress: Progress, last_index: RaftIndex) -> bool:
        """Send one append, if there is anything to say; whether there may be more to send."""
        core = self.core
        log = core.log
        next_index = progress.next_index
        prev_index = RaftIndex(next_index - 1)
        prev_term = log.term_at(prev_index)
        if prev_term is None or next_index < log.first_index:
            progress.snapshot(RaftIndex(log.first_index - 1))
            return False
        entries: list[Entry] = []
        size_bytes = 0
        if next_index <= last_index and not progress.is_stalled:
            entries = log.slice_bytes(next_index, last_index, core.options.append_bytes_max)
            size_bytes = sum(len(entry.data or b"") for entry in entries)
        elif progress.is_told(min(log.committed_index, prev_index) if self.leader.tells_commit else 0):
            return False
        self.sequence += 1
        core.post(
            Message(
                MessageKind.APPEND,
                core.member,
                member,
                core.term,
                prev_index,
                prev_term,
                log.committed_index,
                tuple(entries),
                sequence=self.sequence,
                boot=core.boot,
            )
        )
        sent_index = RaftIndex(prev_index + len(entries))
        progress.sent(sent_index, size_bytes)
        progress.commit_sent = min(log.committed_index, sent_index)
        progress.is_stalled = False
        return bool(entries)

    def _offer_checkpoint(self, member: int, progress: Progress) -> None:
        """At most once between two heartbeats: logs that contradict each other refuse every offer at once."""
        core = self.core
        index = RaftIndex(core.log.first_index - 1)
        progress.snapshot(index)  # the newest boundary: the log may have been cut again meanwhile
        progress.is_paused = progress.is_offered = True
        core.events.append(CheckpointWanted(member, index))
        self.sequence += 1
        core.send(
            MessageKind.SNAPSHOT,
            member,
            index=index,
            log_term=core.log.term_at(index) or Term(0),
            sequence=self.sequence,
        )

    # -- in -------------------------------------------------------------------------------------------------------

    def heard(self, message: Message, *, is_append: bool) -> None:
        """An answer to an append or a heartbeat."""
        leader = self.leader
        progress = leader.progress[message.sender]
        if message.boot < progress.boot:
            return  # said before its last start: what it promised then is not what it is now
        progress.is_active = True
        is_news = progress.is_news(message.boot, message.sequence)
        if is_news and not progress.is_fenced and self._has_lost(progress, message):
            leader.fence(message.sender, progress, message)
        if progress.is_fenced:
            return
        if message.is_rejected:
            self._refused(progress, message)
        else:
            faulty_index = self.core.log.faulty_index  # from there on there is nothing that could be sent again
            is_hint = message.hint_index and (faulty_index is None or message.hint_index < faulty_index)
            is_unreadable = is_hint and message.sequence >= progress.resent_sequence
            if is_news and (is_unreadable or (is_append and message.index < progress.match_index)):
                progress.damaged(message.index)
                progress.resent_sequence = self.sequence + 1
            elif not is_append:
                self._beat(progress, message, is_news=is_news)
            self._acked(message.sender, progress, message.index)
        if is_news and len(leader.reads):
            leader.confirm_reads()

    def _has_lost(self, progress: Progress, message: Message) -> bool:
        """Whether its evidenced last fell behind what it acknowledged in this term: amnesia, not damage."""
        acked_term = self.core.log.term_at(progress.acked_index) or Term(0)
        return message.last_index < progress.acked_index or message.last_term < acked_term

    def _refused(self, progress: Progress, message: Message) -> None:
        """Skip back over whole terms: to the last entry here that can be in its log, too (§5.3, end)."""
        hint = message.hint_index
        if message.hint_term:
            hint = self.core.log.last_at_most(hint, message.hint_term)
        progress.refused(message.index, RaftIndex(hint + 1))

    def _beat(self, progress: Progress, message: Message, *, is_news: bool) -> None:
        if progress.state is ProgressState.PROBE:
            progress.is_paused = False
        elif progress.state is ProgressState.REPLICATE:
            if is_news and message.index < progress.match_index:
                progress.probe()  # it was started again and does not know yet that its log is this one
            elif progress.inflight_count and message.index < progress.next_index - 1:
                progress.beat()

    def _acked(self, member: int, progress: Progress, match_index: RaftIndex) -> None:
        state = progress.state
        was_paused = progress.is_paused
        is_more = progress.acked(match_index)
        if progress.match_index >= progress.acked_index:
            progress.is_damaged = False
        if state is ProgressState.PROBE and match_index == progress.match_index and (is_more or was_paused):
            progress.replicate()
        elif state is ProgressState.SNAPSHOT:
            if progress.match_index >= progress.snapshot_index:
                progress.replicate()
            else:
                progress.is_paused = was_paused
        if is_more:
            self.leader.advanced(member)
