"""A random cluster of cores from one seed: everything that may go wrong does, and R1–R11 are checked after each step.

``Cluster(seed).run()`` draws a size, bounds and a subset of faults ("swarm"), takes steps, then heals everything and
demands that the group comes to rest: one leader, everybody has applied the same. Same seed, same run. Tens of thousands
of steps per second: ``python tests/raft/cluster.py 0 1000`` runs many seeds and prints what happened.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from raft_checks import Checker, Violation
from raft_world import Member, World

from jetstore.errors import ConfChangeRefused, NotNow
from jetstore.raft.core import RaftOptions
from jetstore.raft.membership import ConfChange, Configuration, decode_configuration, is_configuration
from jetstore.raft.message import Message
from jetstore.raft.quorum import is_quorum
from jetstore.types import RaftIndex

STEPS = 1_200
"""Of one seed, without healing."""
IN_FLIGHT_MAX = 400


@dataclass(slots=True)
class Report:
    """What a seed did."""

    seed: int
    steps: int = 0
    committed: int = 0
    elections: int = 0
    reads: int = 0
    crashes: int = 0
    changes: int = 0
    damaged: int = 0
    lost: int = 0


class Cluster:
    """One seed."""

    def __init__(self, seed: int, steps: int = STEPS) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        self.steps = steps
        self.report = Report(seed)
        size = rng.choice([1, 2, 3, 3, 3, 3, 4, 5, 5])
        options = RaftOptions(
            election_ticks=rng.choice([4, 6, 10]),
            append_bytes_max=rng.choice([16, 64, 1 << 20]),
            inflight_appends_max=rng.choice([1, 2, 8]),
            inflight_bytes_max=1 << 20,
            unapplied_bytes_max=rng.choice([200, 1 << 20]),
            promote_lag_entries=rng.choice([2, 1000]),
            faulty_campaign_timeouts=rng.choice([1, 2, 3]),
            repair_batch=rng.choice([1, 2, 64]),
        )
        self.world = World(lambda number: Random(seed * 1000 + number).randrange, options)
        self.checker = Checker(self.world)
        self.world.watchers = [self.checker]
        self.world.block_bytes = rng.choice([None, None, 30])
        self.world.resident_bytes_max = rng.choice([1 << 30, 1 << 30, 20, 0])
        self.world.found(Configuration.founding([(f"n{i}", 1) for i in range(1, size + 1)]))
        self.nodes = size
        self.value = 0
        self.context = 0
        self.faults_off = False
        self._draw_faults()
        for member in self.members():
            self.start(member)

    def _draw_faults(self) -> None:
        rng = self.rng

        def rate(likely: float, highest: float) -> float:
            return rng.random() * highest if rng.random() < likely else 0.0

        self.loss = rate(0.5, 0.3)
        self.duplicates = rate(0.4, 0.2)
        self.reorders = rng.random() < 0.6
        self.is_async = rng.random() < 0.7
        self.damages = rng.random() < 0.4
        weights: list[tuple[Callable[[], None], float]] = [
            (self.deliver, 60.0),
            (self.tick, 14.0),
            (self.propose, 8.0),
            (self.store, 20.0 if self.is_async else 0.5),
            (self.fetch, 2.0),
            (self.start_one, 2.0),
            (self.crash, 0.4 + rng.random() if self.damages else rate(0.6, 1.0)),
            (self.cut, rate(0.5, 0.6)),
            (self.heal, 0.6),
            (self.pause, rate(0.3, 0.5)),
            (self.transfer, rate(0.4, 1.0)),
            (self.change, rate(0.6, 3.0)),
            (self.depose, rate(0.7, 0.4)),
            (self.compact, rate(0.5, 1.0)),
            (self.campaign, rate(0.3, 0.5)),
            (self.forget, rate(0.2, 0.3)),
            (self.suspect, rate(0.2, 0.3)),
            (self.read, rate(0.6, 3.0)),
            (self.quiesce, rate(0.2, 1.0)),
            (self.slow_apply, rate(0.3, 1.0)),
            (self.report_snapshot, rate(0.3, 1.0)),
            (self.unreachable, rate(0.2, 0.5)),
        ]
        if not self.damages:
            weights.append((self.lose_disk, rate(0.4, 0.15)))
        fills = Random(f"full {self.seed}")
        self.fills = fills.random() < 0.25
        if self.fills:
            weights.append((self.fill, fills.random()))
        self.actions = [action for action, weight in weights if weight]
        self.weights = [weight for _, weight in weights if weight]
        self.paused: set[int] = set()
        self.lost: set[int] = set()
        """Members whose disk is gone for good. Their node would come back under another number."""

    # -- running --------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """All steps, then healing. Raises Violation."""
        try:
            for action in self.rng.choices(self.actions, self.weights, k=self.steps):
                action()
                self.report.steps += 1
                if len(self.world.in_flight) > IN_FLIGHT_MAX:
                    del self.world.in_flight[: IN_FLIGHT_MAX // 2]
            self.heal_all()
        except AssertionError as wrong:
            wrong.add_note(f"seed {self.seed}, step {self.report.steps}")
            raise
        self.report.committed = self.checker.commit_index
        self.report.elections = self.checker.elections
        self.report.reads = self.checker.answered_reads
        return self.report

    def members(self) -> list[Member]:
        return list(self.world.members.values())

    def up(self) -> list[Member]:
        return [m for m in self.world.members.values() if m.core is not None and m.number not in self.paused]

    def some(self) -> Member | None:
        up = self.up()
        return up[self.rng.randrange(len(up))] if up else None

    def leader(self) -> Member | None:
        """Somebody who believes to lead; now and then anybody."""
        leaders = [m for m in self.up() if m.running.is_leader]
        if not leaders or self.rng.random() < 0.03:
            return self.some()
        return leaders[self.rng.randrange(len(leaders))]

    def pump(self, member: Member) -> None:
        if member.core is None:
            return
        member.pump()
        self.checker.after(member)
        self._join(member)

    def _join(self, member: Member) -> None:
        """Nodes that the configuration names get their replica."""
        core = member.core
        assert core is not None
        highest = max(self.world.members)
        for number in core.configuration.all_members:
            if number > highest:
                self.start(self.world.add(number))

    def start(self, member: Member) -> None:
        member.is_async = self.is_async and not self.faults_off
        member.splits = self.fills
        member.start()
        self.checker.started(member)
        self.pump(member)

    # -- actions --------------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        flight = self.world.in_flight
        if not flight:
            self.tick()
            return
        position = self.rng.randrange(len(flight)) if self.reorders else 0
        message = flight[position] if self.rng.random() < self.duplicates else flight.pop(position)
        if self.loss and self.rng.random() < self.loss:
            return
        self.hand_over(message)

    def hand_over(self, message: Message) -> None:
        if message.to in self.paused:
            if self.rng.random() < 0.5:
                self.world.in_flight.append(message)
            return
        if self.world.deliver(message):
            self.pump(self.world.members[message.to])

    def tick(self) -> None:
        if self.rng.random() < 0.5:
            for member in self.up():
                member.running.tick()
                self.pump(member)
        elif (member := self.some()) is not None:  # type: ignore[assignment]
            member.running.tick()
            self.pump(member)

    def propose(self) -> None:
        member = self.leader()
        if member is not None:
            self.propose_some(member)

    def store(self) -> None:
        member = self.some()
        if member is not None and member.pending:
            member.store(self.rng.choice([1, 1, 2, None]))
            self.pump(member)

    def fetch(self) -> None:
        for member in self.up():
            if member.fetch is not None and self.rng.random() < 0.5 and self.world.fetch(member):
                self.pump(member)

    def crash(self) -> None:
        rng = self.rng
        member = self.some()
        victims = self.up() if rng.random() < 0.1 else [member] if member else []
        for victim in victims:
            victim.crash(keep=rng.randrange(len(victim.pending) + 1))
            self.checker.after(victim)
            self.report.crashes += 1
            if self.damages and rng.random() < 0.6:
                self.damage(victim)

    def damage(self, member: Member) -> None:
        """Some entries of one copy become unreadable, as long as somebody keeps each one."""
        for entry in member.disk.entries:
            if self.rng.random() < 0.3 and self.has_other_copy(member, entry.index, entry.term):
                with_line = self.rng.random() < 0.1
                self.report.damaged += member.disk.damage(entry.index, with_line=with_line)

    def lose_disk(self) -> None:
        """A disk is gone for good; at most so many that every configuration in use keeps a quorum."""
        member = self.some()
        if member is None or member.number in self.lost:
            return
        lost = self.lost | {member.number}
        for other in self.members():
            if other.core is None:
                if other.number in self.lost:
                    continue
                return  # who knows which configuration is on its disk
            c = other.core.configuration
            if not is_quorum(c.voters, c.voters_outgoing, c.all_voters - lost) and c.voters:
                return
        member.crash()
        self.checker.after(member)
        self.lost.add(member.number)
        self.report.lost += 1

    def has_other_copy(self, member: Member, index: int, term: int) -> bool:
        """Whether a member that nobody can have removed meanwhile holds this very entry intact."""
        for other in self.members():
            if other is member or other.is_archived:
                continue
            found = other.disk.entry(index)
            if found is not None and found.term == term and found.data is not None:
                return True
            if index <= other.disk.checkpoint.index and self.checker.committed[index - 1][0] == term:
                return True
        return False

    def start_one(self) -> None:
        down = [m for m in self.members() if m.core is None and m.number not in self.lost]
        if down:
            self.start(down[self.rng.randrange(len(down))])

    def cut(self) -> None:
        numbers = list(self.world.members)
        kind = self.rng.random()
        if kind < 0.4:
            one, other = self.rng.choice(numbers), self.rng.choice(numbers)
            self.world.cuts.add((one, other))
        else:
            side = {n for n in numbers if self.rng.random() < 0.5}
            self.world.cuts |= {(a, b) for a in numbers for b in numbers if (a in side) != (b in side)}

    def heal(self) -> None:
        self.world.cuts.clear()
        if self.rng.random() < 0.5:
            self.paused.clear()

    def pause(self) -> None:
        self.paused.add(self.rng.choice(list(self.world.members)))

    def transfer(self) -> None:
        member = self.leader()
        if member is not None:
            try:
                member.running.transfer_leader(self.rng.choice(list(self.world.members)))
            except (NotNow, ConfChangeRefused):
                pass
            self.pump(member)

    def change(self) -> None:
        member = self.leader()
        if member is None:
            return
        core, rng = member.running, self.rng
        c = core.configuration
        kind = rng.random()
        if c.is_joint and rng.random() < 0.7:
            change = ConfChange.leave_joint()
        elif kind < 0.35 and len(c.all_members) < 6:
            self.nodes += 1
            make = ConfChange.add_learner if rng.random() < 0.8 else ConfChange.add_voter
            change = make(f"n{self.nodes}", 1)
        elif kind < 0.6 and c.learners:
            change = ConfChange.promote(rng.choice(sorted(c.learners)))
        elif kind < 0.75 and c.learners and c.voters:
            change = ConfChange.replace(rng.choice(sorted(c.voters)), rng.choice(sorted(c.learners)))
        elif kind < 0.85 and len(c.voters) > 1:
            change = ConfChange.demote(rng.choice(sorted(c.voters)))
        elif len(c.voters) > 1:
            change = ConfChange.remove(*rng.sample(sorted(c.voters), rng.choice([1, 1, 1, 2])))
        else:
            return
        try:
            if self.lost:  # an operator does not remove what is left; a leader only learns after a while who is gone
                after = c.changed(change)
                if not is_quorum(after.voters, after.voters_outgoing, after.all_voters - self.lost):
                    return
            core.propose_conf_change(change)
            self.report.changes += 1
        except (NotNow, ConfChangeRefused):
            pass
        self.pump(member)
        if rng.random() < 0.5:  # so that another one may follow soon
            self.exchange({m.number for m in self.up()})

    def compact(self) -> None:
        member = self.some()
        if member is not None:
            member.compact()
            self.pump(member)

    def campaign(self) -> None:
        member = self.some()
        if member is not None:
            member.running.campaign()
            self.pump(member)

    def forget(self) -> None:
        member = self.some()
        if member is not None:
            member.running.forget_leader()
            self.pump(member)

    def suspect(self) -> None:
        member = self.some()
        if member is not None:
            member.running.suspect_leader()
            self.pump(member)

    def read(self) -> None:
        member = self.leader() if self.rng.random() < 0.6 else self.some()
        if member is not None:
            self.read_at(member)

    def read_at(self, member: Member) -> None:
        self.context += 1
        self.checker.asks(member, self.context)
        try:
            member.running.read_index(self.context)
        except NotNow:
            return
        self.pump(member)

    def quiesce(self) -> None:
        member = self.leader()
        if member is not None:
            member.running.quiesce()
            self.pump(member)

    def slow_apply(self) -> None:
        member = self.some()
        if member is not None:
            member.applies = not member.applies
            self.pump(member)

    def fill(self) -> None:
        """A journal has no room for entries any more, or has it again."""
        member = self.some()
        if member is not None:
            member.is_full = not member.is_full
            self.pump(member)

    def report_snapshot(self) -> None:
        """The driver of a leader heard how a fetch ended; perhaps it is wrong about it."""
        member = self.leader()
        if member is None:
            return
        other = self.world.members[self.rng.choice(list(self.world.members))]
        index = self.rng.choice([0, other.disk.checkpoint.index])
        member.running.report_snapshot(other.number, RaftIndex(index))
        self.pump(member)

    def unreachable(self) -> None:
        member = self.leader()
        if member is not None and member.running.is_leader:
            member.running.report_unreachable(self.rng.choice(list(self.world.members)))
            self.pump(member)

    def depose(self) -> None:
        """A leader is cut off, others go on without it; it may have taken proposals, and may be asked for a read."""
        rng = self.rng
        leaders = [m for m in self.up() if m.running.is_leader]
        if not leaders:
            return
        old = leaders[rng.randrange(len(leaders))]
        others = [m for m in self.up() if m is not old]
        numbers = {m.number for m in others}
        self.world.cuts = {(a, old.number) for a in self.world.members} | {(old.number, a) for a in self.world.members}
        self.propose_some(old)
        for _ in range(3 * self.world.options.election_ticks):
            for member in others:
                if member.core is not None:
                    member.core.tick()
                    self.pump(member)
            self.exchange(numbers)
            new = [m for m in others if m.core is not None and m.core.is_leader and m.core.term > old.running.term]
            if new:
                break
        else:
            return
        self.propose_some(new[0])
        self.exchange(numbers)
        if rng.random() < 0.4:
            for member in others:
                if member.core is not None:
                    member.compact()
                    self.pump(member)
        if rng.random() < 0.5 and old.core is not None:
            self.read_at(old)
        if rng.random() < 0.6:
            self.world.cuts.clear()

    def propose_some(self, member: Member) -> None:
        for _ in range(self.rng.choice([0, 1, 1, 1, 4])):
            self.value += 1
            try:
                member.running.propose(b"v%d" % self.value)
            except NotNow:
                break
        self.pump(member)

    def exchange(self, numbers: set[int]) -> None:
        """What is under way among these members arrives, and their blocks become durable; for a while."""
        for _ in range(60):
            mine = [m for m in self.world.in_flight if m.sender in numbers and m.to in numbers]
            if not mine:
                return
            chosen = {id(m) for m in mine}
            self.world.in_flight = [m for m in self.world.in_flight if id(m) not in chosen]
            for message in mine:
                if self.world.deliver(message):
                    self.pump(self.world.members[message.to])
            for number in numbers:
                member = self.world.members[number]
                if member.core is not None and member.pending:
                    member.store()
                    self.pump(member)

    # -- the end --------------------------------------------------------------------------------------------------

    def heal_all(self) -> None:
        """No more faults: the group must come to rest with everything that was committed, everywhere."""
        self.faults_off = True
        self.world.cuts.clear()
        self.paused.clear()
        for member in self.members():
            if member.number in self.lost:
                continue
            member.is_async = member.is_full = False
            member.applies = True
            if member.core is None:
                self.start(member)
            else:
                member.store()
                member.running.wake()
                self.pump(member)
        ticks = 20 * self.world.options.election_ticks  # two or so are usual, eight the most in 400 seeds
        marker = 0
        for tick in range(ticks):
            for member in self.up():
                member.running.tick()
                self.pump(member)
            self.settle()
            if tick % 5 == 0 and self.is_at_rest(marker):
                if marker:
                    return
                marker = self.propose_marker()
        raise Violation("L3", f"it does not come to rest: {self.describe()}")

    def settle(self) -> None:
        for _ in range(20_000):
            if self.world.in_flight:
                message = self.world.in_flight.pop(0)
                if self.world.deliver(message):
                    self.pump(self.world.members[message.to])
                continue
            fetched = [m for m in self.up() if m.fetch is not None and self.world.fetch(m)]
            if not fetched:
                return
            for member in self.up():
                self.pump(member)
        raise Violation("L4", f"messages without end: {self.describe()}")

    def propose_marker(self) -> int:
        """A last entry: with it everything from older terms is committed too."""
        for member in self.up():
            if member.running.is_leader:
                try:
                    entry = member.running.propose(b"end")
                except NotNow:
                    return 0
                self.pump(member)
                return entry.index
        return 0

    def final(self) -> Configuration | None:
        """The last configuration that is committed."""
        for index in range(self.checker.commit_index, 0, -1):
            data = self.checker.committed[index - 1][1]
            if is_configuration(data):
                return decode_configuration(data)
        return None

    def is_at_rest(self, marker: int) -> bool:
        leaders = [m for m in self.up() if m.running.is_leader]
        if not leaders:
            return False
        leader = max(leaders, key=lambda m: m.running.term)
        c = leader.running.configuration
        if c.is_joint and c.auto_leave:
            return False
        commit = self.checker.commit_index
        if commit < marker:
            return False
        everybody = [self.world.members[n] for n in c.all_members if n not in self.lost]
        return all(m.core is not None and m.applied_index >= commit for m in everybody)

    def describe(self) -> str:
        lines = [f"commit {self.checker.commit_index}"]
        for member in self.members():
            if member.core is None:
                lines.append(f"{member.number} down")
                continue
            s = member.core.status()
            lines.append(
                f"{s.member} {s.role.value} t{s.term} leader {s.leader} committed {s.committed_index} applied "
                f"{s.applied_index} last {s.last_index}@{s.last_term} voters {sorted(s.configuration.voters)} "
                f"< {sorted(s.configuration.voters_outgoing)} learners {sorted(s.configuration.learners)} "
                f"faulty {list(s.faulty)} waiting {s.waiting_for} fetch {member.fetch} "
                f"{ {n: (p.state, p.match_index, p.is_fenced, p.is_damaged) for n, p in s.progress.items()} }"
            )
        return "\n  ".join(lines)


def main(first: int, last: int) -> None:
    """Run seeds and print totals; a failing seed is printed with its violation."""
    total: Counter[str] = Counter()
    for seed in range(first, last):
        try:
            report = Cluster(seed).run()
        except AssertionError as wrong:
            print(f"seed {seed}: {type(wrong).__name__}: {wrong} {getattr(wrong, '__notes__', '')}")
            total["failed"] += 1
            continue
        total["seeds"] += 1
        for name in Report.__slots__[1:]:
            total[name] += getattr(report, name)
    print(dict(total))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
