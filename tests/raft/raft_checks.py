"""R1–R11 of the durability contract, checked from outside while cores run.

``Checker`` keeps its own books: what each disk holds, who voted for whom, what was committed, from what was written and
sent, never from what a core believes. A ``Violation`` names the invariant. ``after(member)`` is called after each step
of a member and compares what its core says now with the books.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import combinations

from raft_world import Checkpoint, Member, Watcher, World

from jetstore.raft.log import Entry
from jetstore.raft.membership import Configuration, decode_configuration, is_configuration
from jetstore.raft.message import Answer, Message, MessageKind
from jetstore.raft.quorum import is_quorum
from jetstore.raft.ready import Event, Fenced, ReadState, Ready, Removed, Role

K = MessageKind
Last = tuple[int, int]
"""(term, index) of a last entry."""


class Violation(AssertionError):
    """An invariant does not hold. ``rule`` is its name in durability.md §18, or READ."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


ONLY: set[str] = set()
"""If not empty, no other rules are looked at: to see that each one, taken alone, finds something."""


def demand(holds: bool, rule: str, text: Callable[[], str]) -> None:
    if not holds and (not ONLY or rule in ONLY):
        raise Violation(rule, text())


@lru_cache(maxsize=4096)
def do_quorums_meet(
    before: tuple[frozenset[int], frozenset[int]], after: tuple[frozenset[int], frozenset[int]]
) -> bool:
    """Whether every quorum of one configuration has somebody in common with every quorum of the other."""

    def quorums(halves: tuple[frozenset[int], frozenset[int]]) -> list[frozenset[int]]:
        everybody = sorted(halves[0] | halves[1])
        return [
            frozenset(chosen)
            for size in range(1, len(everybody) + 1)
            for chosen in combinations(everybody, size)
            if is_quorum(halves[0], halves[1], chosen)
        ]

    return all(one & other for one in quorums(before) for other in quorums(after))


class Checker(Watcher):
    """The books of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.leaders: dict[int, int] = {}
        self.known: dict[Last, tuple[int, bytes]] = {}
        """(term, index) → term of the entry before, data (R2)."""
        self.holders: dict[Last, set[int]] = {}
        """Who ever held this entry durably."""
        self.lasts: dict[int, set[Last]] = {}
        """Member → what its log ended in since it was started: a held pre-vote may name an earlier end."""
        self.votes: dict[tuple[int, int], int] = {}
        """(member, term) → who it voted for: what was durable or said."""
        self.durable_votes: dict[int, dict[int, set[int]]] = {}
        """Term → candidate → who has a durable vote for it."""
        self.claims: dict[tuple[int, int], Last] = {}
        """(candidate, term) → last entry in its vote requests."""
        self.committed: list[tuple[int, bytes]] = []
        """Position i: term and data of committed index i + 1."""
        self.applied_entries: dict[int, tuple[int, bytes | None]] = {}
        """Index → term and data of what was applied there by whoever was first."""
        self.states: dict[int, int] = {}
        """Applied index → digest of the state."""
        self.seen: dict[int, tuple[int, int, int, int]] = {}
        """Member → (boot, term, committed, applied) after its last step."""
        self.roles: dict[int, tuple[Role, int]] = {}
        self.configurations: dict[int, Configuration] = {}
        self.block_lasts: dict[int, int] = {}
        self.reads: dict[tuple[int, object], int] = {}
        """(member, context) → the commit index of the group when the read was asked."""
        self.answered_reads = 0
        self.forgetful: set[int] = set()
        """Members that lost what they had promised (a test made them): a leader may stop counting them."""
        self.elections = 0

    @property
    def commit_index(self) -> int:
        """The highest index that any member has known to be committed."""
        return len(self.committed)

    # -- what reaches the disk ------------------------------------------------------------------------------------

    def started(self, member: Member) -> None:
        """Recovery must know of everything there is evidence of (R11), and of no smaller term (R6)."""
        log, disk = member.running.log, member.disk
        self.lasts[member.number] = {(log.last_term, log.last_index)}
        self._is_whole(member, (log.last_term, log.last_index), "after recovery")
        demand(member.running.term >= disk.hard_state.term, "R5", lambda: f"{member.number} went back in term")

    def _is_whole(self, member: Member, last: Last, when: str) -> None:
        demand(
            last >= member.disk.last, "R11", lambda: f"{member.number} {when}: {last}, evidence of {member.disk.last}"
        )

    def will_store(self, member: Member, ready: Ready) -> None:
        disk = member.disk
        hard = ready.hard_state
        if hard is not None:
            before = disk.hard_state
            demand(hard.term >= before.term, "R5", lambda: f"{member.number} goes back from {before} to {hard}")
            if hard.vote:
                self._voted(member.number, hard.term, hard.vote)
        entries = ready.entries
        if not entries:
            return
        first, last = entries[0].index, entries[-1].index
        for old in disk.entries[max(first - disk.checkpoint.index - 1, 0) :]:
            if old.index > self.commit_index or self.committed[old.index - 1][0] != old.term:
                continue
            kept = old.index <= last and entries[old.index - first].term == old.term
            demand(kept, "R7", lambda o=old: f"{member.number} drops {o.index}@{o.term}, which is committed")  # type: ignore[misc]
        before_term = ready.prev_term
        for entry in entries:
            self._know(member, entry, before_term)
            before_term = entry.term

    def _know(self, member: Member, entry: Entry, before_term: int) -> None:
        demand(entry.data is not None, "R10", lambda: f"{member.number} writes {entry.index} without its bytes")
        assert entry.data is not None
        told = self.known.setdefault((entry.term, entry.index), (before_term, entry.data))
        demand(
            told == (before_term, entry.data),
            "R2",
            lambda: (
                f"two entries {entry.index}@{entry.term}: {told} and {(before_term, entry.data)} at {member.number}"
            ),
        )
        demand(entry.term >= before_term, "R2", lambda: f"{entry.index}@{entry.term} follows term {before_term}")

    def is_durable(self, member: Member, ready: Ready) -> None:
        number = member.number
        if ready.hard_state is not None and ready.hard_state.vote:
            hard = ready.hard_state
            self.durable_votes.setdefault(hard.term, {}).setdefault(hard.vote, set()).add(number)
        for entry in ready.entries:
            self.holders.setdefault((entry.term, entry.index), set()).add(number)

    def _voted(self, number: int, term: int, candidate: int) -> None:
        told = self.votes.setdefault((number, term), candidate)
        demand(told == candidate, "R6", lambda: f"{number} votes for {candidate} in t{term}, and did for {told}")

    # -- what is said ---------------------------------------------------------------------------------------------

    def sent(self, member: Member, message: Message) -> None:
        kind, disk, number = message.kind, member.disk, member.number
        demand(message.sender == number, "R9", lambda: f"{number} speaks for {message.sender}")
        if kind is K.PRE_VOTE or (kind is K.PRE_VOTE_RESPONSE and not message.is_rejected):
            if kind is K.PRE_VOTE:
                self._claims(member, message)
            return
        demand(
            disk.hard_state.term >= message.term,
            "R10",
            lambda: f"{number} speaks in t{message.term}, durable is t{disk.hard_state.term}: {kind.name}",
        )
        if kind is K.VOTE:
            self._claims(member, message)
            self._voted(number, message.term, number)
            demand(  # a later term closes this one: no other vote can be given in it
                disk.hard_state.term > message.term or disk.hard_state.vote == number,
                "R10",
                lambda: f"{number} asks for votes in t{message.term} with {disk.hard_state} on disk",
            )
            demand(
                disk.term_at(message.last_index) == message.last_term,
                "R10",
                lambda: f"{number} stands with {message.last_index}@{message.last_term}, which is not durable",
            )
        elif kind is K.VOTE_RESPONSE and not message.is_rejected:
            self._voted(number, message.term, message.to)
            if disk.hard_state.term == message.term:
                demand(
                    disk.hard_state.vote == message.to,
                    "R10",
                    lambda: f"{number} grants {message.to} with {disk.hard_state} on disk",
                )
            claim = self.claims.get((message.to, message.term))
            if claim is not None and disk.last[0] < message.term:
                demand(
                    claim >= disk.last,
                    "R11",
                    lambda: f"{number} has {disk.last} and votes for {message.to}, which has {claim}",
                )
        elif kind in (K.APPEND_RESPONSE, K.HEARTBEAT_RESPONSE) and not message.is_rejected:
            self._matches(member, message)
        elif kind is K.REPAIR_RESPONSE:
            self._answers(member, message)
        elif kind is K.APPEND:
            self._appends(member, message)

    def _claims(self, member: Member, message: Message) -> None:
        log = member.running.log
        last = (message.last_term, message.last_index)
        self.claims[message.sender, message.term] = last
        demand(
            last in self.lasts.get(member.number, ()) or last >= max(member.disk.last, (log.last_term, log.last_index)),
            "R11",
            lambda: f"{member.number} stands with {last}, evidence of {member.disk.last}",
        )

    def _matches(self, member: Member, message: Message) -> None:
        """A member may say that it has what is on its disk, readable, and the same as the leader's."""
        disk, number, match = member.disk, member.number, message.index
        demand(disk.last_index >= match, "R10", lambda: f"{number} matches {match}, durable is {disk.last_index}")
        last = (message.last_term, message.last_index)  # true when it was said; held back for the term since, perhaps
        demand(
            disk.term_at(last[1]) == last[0] or number in self.holders.get(last, ()) or not last[1],
            "R10",
            lambda: f"{number} says it ends in {last[1]}@{last[0]}, durable is {disk.last}",
        )
        for ready in member.pending:  # a crash may leave the disk after any of the blocks under way
            entries = ready.entries
            if entries and entries[0].index <= match:
                kept = entries[-1].index >= match and all(
                    disk.term_at(e.index) == e.term for e in entries if e.index <= match
                )
                demand(kept, "R10", lambda: f"{number} matches {match}, which a block under way will overwrite first")
        leader = self.world.members.get(message.to)
        if leader is not None and leader.core is not None and leader.core.term == message.term:
            log = leader.core.log
            if leader.core.is_leader and log.first_index <= match <= log.last_index and match > disk.checkpoint.index:
                demand(
                    disk.term_at(match) == log.term_at(match),
                    "R10",
                    lambda: f"{number} matches {match} of term {log.term_at(match)}, durable is {disk.term_at(match)}",
                )
        if match > disk.checkpoint.index:
            damaged = next((e.index for e in disk.entries[: match - disk.checkpoint.index] if e.data is None), None)
            demand(damaged is None, "R10", lambda: f"{number} matches {match} and cannot read {damaged}")

    def _answers(self, member: Member, message: Message) -> None:
        """NEVER must be true: neither durable nor under way; COMPACTED means committed; HAVE means these bytes."""
        disk, where = member.disk, message.index
        if message.answer is Answer.NEVER:
            demand(
                disk.term_at(where) != message.log_term and where > disk.checkpoint.index,
                "R11",
                lambda: f"{member.number} says it never had {where}@{message.log_term}",
            )
        elif message.answer is Answer.COMPACTED:
            demand(where <= self.commit_index, "R7", lambda: f"{where} is not committed: not compacted")
        elif message.answer is Answer.HAVE:
            (entry,) = message.entries
            told = self.known.get((message.log_term, where))
            demand(told is None or told[1] == entry.data, "R2", lambda: f"other bytes for {where}@{message.log_term}")

    def _appends(self, member: Member, message: Message) -> None:
        self._learn_commits(member)
        before_term = message.log_term
        for entry in message.entries:
            self._know(member, entry, before_term)
            before_term = entry.term
        demand(message.commit <= self.commit_index, "R5", lambda: f"{member.number} says {message.commit} is committed")

    # -- what is applied ------------------------------------------------------------------------------------------

    def applied(self, member: Member, entry: Entry) -> None:
        self._learn_commits(member)
        index = entry.index
        demand(
            member.disk.term_at(index) == entry.term,
            "R5",
            lambda: f"{member.number} applies {index}@{entry.term}, which is not durable here",
        )
        told = self.applied_entries.setdefault(index, (entry.term, entry.data))
        demand(
            told == (entry.term, entry.data),
            "R4",
            lambda: f"{member.number} applies {index}@{entry.term}, another one was applied there: {told}",
        )
        is_committed = index <= self.commit_index and self.committed[index - 1] == (entry.term, entry.data)
        demand(is_committed, "R5", lambda: f"{member.number} applies {index}@{entry.term}, which is not committed")
        self._state(member)

    def installed(self, member: Member, checkpoint: Checkpoint) -> None:
        demand(checkpoint.index <= self.commit_index, "R4", lambda: f"a checkpoint at {checkpoint.index}")
        self.holders.setdefault((checkpoint.term, checkpoint.index), set()).add(member.number)
        self._state(member)

    def _state(self, member: Member) -> None:
        told = self.states.setdefault(member.applied_index, member.state)
        demand(told == member.state, "R4", lambda: f"{member.number} has another state at {member.applied_index}")

    def happened(self, member: Member, event: Event) -> None:
        if isinstance(event, ReadState) and event.index is not None:
            asked = self.reads.pop((member.number, event.context), None)
            if asked is not None:
                self.answered_reads += 1
                demand(
                    event.index >= asked,
                    "READ",
                    lambda: f"{member.number} reads at {event.index}; {asked} was committed when it asked",
                )

        elif isinstance(event, Removed):
            later = [
                index
                for index in range(max(event.index, 1), self.commit_index + 1)
                if member.number in self._members_at(index)
            ]
            demand(not later, "R9", lambda: f"{member.number} is told that it is no member, and is one at {later[0]}")
        elif isinstance(event, Fenced):
            demand(
                event.member in self.forgetful,
                "R9",
                lambda: f"{member.number} counts {event.member} no longer, which has lost nothing",
            )

    def _members_at(self, index: int) -> frozenset[int]:
        """Who is named by the configuration that is committed at this very index, if one is."""
        data = self.committed[index - 1][1]
        return frozenset(decode_configuration(data).members) if is_configuration(data) else frozenset()

    def asks(self, member: Member, context: object) -> None:
        """A read begins: it may not see less than what is committed now."""
        self.reads[member.number, context] = self.commit_index

    # -- what a core believes -------------------------------------------------------------------------------------

    def after(self, member: Member) -> None:
        """Call it after each step of this member."""
        core = member.core
        if core is None:
            self.seen.pop(member.number, None)
            self.roles.pop(member.number, None)
            return
        log, boot = core.log, member.disk.boot
        self._learn_commits(member)
        self.lasts.setdefault(member.number, set()).add((log.last_term, log.last_index))
        now = (boot, core.term, log.committed_index, log.applied_index)
        before = self.seen.get(member.number)
        if before is not None and before[0] == boot and now != before:
            demand(now >= before, "R5", lambda: f"{member.number} went back from {before} to {now}")
            for old, new in zip(before[1:], now[1:], strict=True):
                demand(new >= old, "R5", lambda: f"{member.number} went back from {before} to {now}")
        demand(now[3] <= now[2], "R5", lambda: f"{member.number} applied {now[3]}, committed {now[2]}")
        self.seen[member.number] = now
        self._look_at_role(member)
        if self.configurations.get(member.number) is not core.configuration:
            self.check_configuration(member)

    def block(self, member: Member, ready: Ready) -> None:
        self._look_at_role(member)
        if ready.entries:
            if ready.entries[0].index <= self.block_lasts.get(member.number, 0):  # something was cut off
                self.check_configuration(member)
            self.block_lasts[member.number] = ready.entries[-1].index

    def _look_at_role(self, member: Member) -> None:
        core = member.running
        role = (core.role, core.term)
        if self.roles.get(member.number) != role:
            self.roles[member.number] = role
            if core.role is Role.LEADER:
                self._elected(member)

    def _learn_commits(self, member: Member) -> None:
        core = member.running
        self._look_at_role(member)
        log = core.log
        if log.committed_index <= self.commit_index:
            return
        leads = self.leaders.get(core.term) == member.number  # it may have stepped down because of what it committed
        demand(leads, "R5", lambda: f"{member.number} commits {log.committed_index} and does not lead")
        demand(
            log.term_at(log.committed_index) == core.term,
            "R5",
            lambda: f"leader {member.number} of t{core.term} commits {log.committed_index} of an older term directly",
        )
        self._is_held(member, log.committed_index)
        for index in range(self.commit_index + 1, log.committed_index + 1):
            entry = log.entry(index)  # type: ignore[arg-type]
            data = entry.data
            if data is None:  # committed and unreadable here: its bytes were told when they were written
                data = self.known[entry.term, index][1]
            self.committed.append((entry.term, data))

    def _is_held(self, member: Member, index: int) -> None:
        core = member.running
        term = core.log.term_at(index)  # type: ignore[arg-type]
        assert term is not None
        holders = self.holders.get((term, index), set())
        c = core.configuration
        demand(
            is_quorum(c.voters, c.voters_outgoing, holders),
            "R5" if not holders - c.all_voters else "R9",
            lambda: f"{member.number} commits {index}@{term}, durable at {sorted(holders)} of {sorted(c.all_voters)}",
        )

    def _elected(self, member: Member) -> None:
        core = member.running
        term, number = core.term, member.number
        told = self.leaders.setdefault(term, number)
        demand(told == number, "R1", lambda: f"{number} and {told} both lead t{term}")
        self.elections += 1
        granted = self.durable_votes.get(term, {}).get(number, set())
        c = core.configuration
        demand(
            is_quorum(c.voters, c.voters_outgoing, granted),
            "R6" if not granted - c.all_voters else "R9",
            lambda: f"{number} leads t{term} with the votes of {sorted(granted)} of {sorted(c.all_voters)}",
        )
        log = core.log
        for index in range(max(log.first_index, 1), self.commit_index + 1):
            committed_term = self.committed[index - 1][0]
            if committed_term < term:
                demand(
                    log.term_at(index) == committed_term,  # type: ignore[arg-type]
                    "R3",
                    lambda i=index: f"leader {number} of t{term} lacks {i}@{self.committed[i - 1][0]}",  # type: ignore[misc]
                )

    def check_configuration(self, member: Member) -> None:
        """The configuration in use is the last one in the log, else the checkpoint's (R8); quorums of it meet those
        of the one before it."""
        core = member.running
        self.configurations[member.number] = core.configuration
        log = core.log
        found: list[Configuration] = []
        for index in range(log.last_index, max(log.first_index, log.checkpoint_index + 1) - 1, -1):
            data = log.entry(index).data  # type: ignore[arg-type]
            if data is None and found:
                break  # an unreadable entry may be the one in between
            if data is not None and is_configuration(data):
                found.append(decode_configuration(data))
                if len(found) == 2:
                    break
        if found:
            demand(core.configuration == found[0], "R8", lambda: f"{member.number} uses {core.configuration}")
        if len(found) == 2:
            now, before = found
            if before.voters:
                demand(
                    do_quorums_meet((before.voters, before.voters_outgoing), (now.voters, now.voters_outgoing)),
                    "R8",
                    lambda: f"quorums of {before} and {now} do not meet",
                )
