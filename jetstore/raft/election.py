"""Winning a term: timeouts, pre-votes, votes.

::

    FOLLOWER ──timeout──▶ PRE_CANDIDATE ──a quorum would──▶ CANDIDATE ──a quorum did──▶ LEADER
        ▲ TimeoutNow: straight to CANDIDATE ─────────────────────▲             │
        └──────────────── a leader of this term, or a higher term ─────────────┘

A vote or pre-vote is granted only to a log that reaches at least as far by *evidenced* last (term, index): what is
proved to exist counts, readable or not (R11). A member that hears a leader refuses to listen to candidates for at least
one election timeout, unless the leader itself sent them (transfer). Source: Raft paper §5.2, 5.4.1; thesis §4.2.3, 9.6.

A member with unreadable entries first asks everybody for their bytes, and stands for election only when nobody else has
won for ``faulty_campaign_timeouts`` timeouts. While one of them may be a configuration it does not stand at all: it
does not know who votes, and the one it knows may be two changes behind what others have committed by.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from jetstore.raft.message import Message, MessageKind
from jetstore.raft.quorum import VoteResult, vote_result
from jetstore.raft.ready import Role
from jetstore.types import RaftIndex, Term

if TYPE_CHECKING:
    from jetstore.raft.core import RaftCore


class Election:
    """One member's part in elections, as voter and as candidate."""

    def __init__(self, core: RaftCore) -> None:
        self.core = core
        self.elapsed_ticks = 0
        self.timeout_ticks = 0
        self.votes: dict[int, bool] = {}
        self.asked_index = RaftIndex(0)
        """The last unreadable entry that was asked about."""
        self._is_forced = False
        self._is_canvassing = False
        self.faulty_timeouts = 0
        """Election timeouts that this member let pass because it has unreadable entries."""

    def reset(self) -> None:
        """Start a new, random timeout."""
        ticks = self.core.options.election_ticks
        self.elapsed_ticks = 0
        self.timeout_ticks = ticks + self.core.random_below(ticks)

    def tick(self) -> None:
        """One unit of time without news from a leader."""
        self.elapsed_ticks += 1
        if self.elapsed_ticks < self.timeout_ticks:
            return
        core = self.core
        self.reset()
        if core.leader:
            core.become_follower(core.term, 0)
        if core.log.faulty_index is not None:
            self.faulty_timeouts += 1
            self.ask_for_bytes()
            if self.faulty_timeouts < core.options.faulty_campaign_timeouts:
                return
        self._stand()

    def campaign(self) -> None:
        """Stand for election now, if this member may. With unreadable entries it asks for their bytes instead."""
        core = self.core
        if core.log.faulty_index is not None and not self._is_lone_voter():
            self.ask_for_bytes()
        else:
            self._stand()

    def protects_leader(self, message: Message) -> bool:
        """Whether a candidate of a later term is not even heard: a leader is alive (thesis §4.2.3)."""
        core = self.core
        if message.is_forced:
            return False
        if core.leading is not None:
            return True
        return core.leader != 0 and self.elapsed_ticks < core.options.election_ticks

    # -- candidate ------------------------------------------------------------------------------------------------

    def _may_stand(self) -> bool:
        core = self.core
        return core.configurations.may_vote(core.member, core.log.committed_index)

    def _is_lone_voter(self) -> bool:
        return self.core.configuration.all_voters == {self.core.member}

    def _stand(self) -> None:
        core = self.core
        if core.is_removed:
            return
        if self._may_stand() and not core.configurations.hidden():
            if self._is_lone_voter():
                self._stand_for_real(is_forced=False)
                return
            core.become_follower(core.term, 0)
            core.role = Role.PRE_CANDIDATE
            self.votes = {core.member: True}
        elif self._is_lone_voter():
            self._commit_what_precedes()
        # Who may not stand asks all the same: it may have been removed, and be told; or have bytes that another needs.
        self._canvass(MessageKind.PRE_VOTE, Term(core.term + 1), is_forced=False)

    def _commit_what_precedes(self) -> None:
        """A lone voter's log is what was committed; entries that may hide other voters end what it can know of that."""
        core = self.core
        log = core.log
        assert log.faulty_index is not None, "a lone voter that can read everything stands"
        index = RaftIndex(log.faulty_index - 1)
        if core.configurations.at(index).all_voters == {core.member}:
            core.advance_commit(index)

    def _stand_for_real(self, *, is_forced: bool) -> None:
        core = self.core
        core.become_follower(Term(core.term + 1), 0)
        core.set_hard_state(core.term, core.member)
        core.role = Role.CANDIDATE
        self.votes = {}
        self._is_forced = is_forced
        self._is_canvassing = False  # ``stored`` asks for votes, when what this member stands with is durable

    def _canvass(self, kind: MessageKind, term: Term, *, is_forced: bool) -> None:
        core = self.core
        log = core.log
        for member in core.configuration.all_members:
            if member != core.member and core.configuration.is_voter(member):
                core.post(
                    Message(
                        kind,
                        core.member,
                        member,
                        term,
                        last_index=log.last_index,
                        last_term=log.last_term,
                        is_forced=is_forced,
                        boot=core.boot,
                    )
                )

    def handle_pre_vote_response(self, message: Message) -> None:
        """A voter would, or would not, vote for this member."""
        core = self.core
        if core.role is not Role.PRE_CANDIDATE:
            return
        if not message.is_rejected and message.term != core.term + 1:
            return  # of an earlier round
        result = self._heard(message)
        if result is VoteResult.WON:
            self._stand_for_real(is_forced=False)
        elif result is VoteResult.LOST:
            core.become_follower(core.term, 0)

    def handle_vote_response(self, message: Message) -> None:
        """A voter did, or did not, vote for this member."""
        if self.core.role is Role.CANDIDATE:
            self._decide(self._heard(message))

    def stored(self) -> None:
        """A candidate's own vote, and the log that it stands with, are durable: count it, ask the others (R10)."""
        if self._is_canvassing:
            return
        core = self.core
        self._is_canvassing = True
        self.votes[core.member] = True
        self._canvass(MessageKind.VOTE, core.term, is_forced=self._is_forced)
        self._decide(self._result())

    def _decide(self, result: VoteResult) -> None:
        if result is VoteResult.WON:
            self.core.become_leader()
        elif result is VoteResult.LOST:
            self.core.become_follower(self.core.term, 0)

    def _heard(self, message: Message) -> VoteResult:
        self.votes.setdefault(message.sender, not message.is_rejected)
        return self._result()

    def _result(self) -> VoteResult:
        configuration = self.core.configuration
        return vote_result(configuration.voters, configuration.voters_outgoing, self.votes)

    def handle_timeout_now(self, message: Message) -> None:
        """The leader hands over: stand at once, without a pre-vote, and say that the leader wants it."""
        core = self.core
        core.follow(message.sender)
        if self._may_stand() and core.log.faulty_index is None:
            self._stand_for_real(is_forced=True)

    # -- voter ----------------------------------------------------------------------------------------------------

    def handle_vote(self, message: Message) -> None:
        """A candidate asks for a vote, or whether it would get one.

        Whoever is asked answers, also a learner: it may be a voter in a configuration that it has not got yet.
        """
        core = self.core
        log = core.log
        is_pre_vote = message.kind is MessageKind.PRE_VOTE
        is_free = core.vote == message.sender or (core.vote == 0 and core.leader == 0)
        if is_pre_vote:
            is_free = is_free or message.term > core.term
        else:
            is_free = is_free and core.term != core.abstains_term
        is_up_to_date = (message.last_term, message.last_index) >= (log.last_term, log.last_index)
        is_granted = is_free and is_up_to_date
        kind = MessageKind.PRE_VOTE_RESPONSE if is_pre_vote else MessageKind.VOTE_RESPONSE
        if not is_granted:
            core.send(kind, message.sender, is_rejected=True)
        elif is_pre_vote:
            core.post(Message(kind, core.member, message.sender, message.term, boot=core.boot))
        else:
            if core.vote == 0:
                core.set_hard_state(core.term, message.sender)
            self.elapsed_ticks = 0
            core.send(kind, message.sender)

    # -- unreadable entries ---------------------------------------------------------------------------------------

    def ask_for_bytes(self, stranger: int = 0) -> None:
        """Ask every other member for the bytes of the first unreadable entries; when they came, for the next.

        Everybody whom this log names, also who was removed since: the bytes are the same. Or only ``stranger``, who is
        not named, or only by an entry that cannot be read.
        """
        core = self.core
        log = core.log
        members = [stranger] if stranger else core.configurations.everybody()
        unreadable = (log.entry(index) for index in log.faulty if log.entry(index).data is None)
        for entry in islice(unreadable, core.options.repair_batch):
            self.asked_index = entry.index
            for member in members:
                if member != core.member:
                    core.send(MessageKind.REPAIR, member, index=entry.index, log_term=entry.term)
