"""What must be true of Raft groups: the invariants R1–R11 of the durability contract, over what nodes said.

The trace is a list of ``RaftState`` (each node's belief, whenever it changed) and of ``RaftPromise`` (what messages
that left it implied). R2, R4 and the bytes of R7 are ``check_hashes`` (``replicas.py``): same history, same hash.
R9 is seen in its effects: a leader that its own configuration does not name, and elections that others did not grant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from jepsen.checker.tally import compared
from jepsen.history import RaftPromise, RaftState

LEADER, CANDIDATE = "leader", "candidate"


def check_raft(states: Sequence[RaftState], promises: Sequence[RaftPromise] = ()) -> list[str]:
    """All of it; states and promises in order of time."""
    compared("raft", len(states) + len(promises))
    return [
        *check_one_leader(states),
        *check_completeness(states),
        *check_monotone(states),
        *check_votes(states, promises),
        *check_committed_stays(states),
        *check_configurations(states),
        *check_promises(states, promises),
    ]


def _tell(state: RaftState | RaftPromise) -> str:
    return f"{state.node} (member {state.member}, boot {state.boot}) at t={state.at_ns / 1e9:.6f}"


def check_one_leader(states: Iterable[RaftState]) -> list[str]:
    """R1: one leader per term."""
    leaders: dict[tuple[str, int], RaftState] = {}
    problems = {}
    for state in states:
        if state.role != LEADER:
            continue
        first = leaders.setdefault((state.group, state.term), state)
        if first.member != state.member or first.node != state.node:
            problems[state.group, state.term] = (
                f"raft: R1 two leaders of {state.group} in term {state.term}: {_tell(first)} and {_tell(state)}"
            )
    return list(problems.values())


def check_completeness(states: Iterable[RaftState]) -> list[str]:
    """R3: who begins to lead holds every entry that was committed in an earlier term."""
    committed: dict[str, dict[int, RaftState]] = {}
    """Per group and term: the state with the highest commit that somebody in that term knew."""
    begun: set[tuple[str, int, str]] = set()
    problems = []
    for state in states:
        key = (state.group, state.term, state.node)
        if state.role == LEADER and key not in begun:
            begun.add(key)
            for term, other in committed.get(state.group, {}).items():
                if term < state.term and other.commit > state.last_index:
                    problems.append(
                        f"raft: R3 {_tell(state)} leads {state.group} in term {state.term} with entries up to "
                        f"{state.last_index}, {_tell(other)} knew {other.commit} as committed in term {term}"
                    )
        highest = committed.setdefault(state.group, {})
        if state.term not in highest or highest[state.term].commit < state.commit:
            highest[state.term] = state
    return problems


def check_monotone(states: Iterable[RaftState]) -> list[str]:
    """R5: term, commit and what is applied never fall within one process; applied ≤ commit ≤ last. (Over restarts only
    what was promised counts: ``check_promises``. What was in memory may be forgotten.)"""
    before: dict[tuple[str, int, str, int], RaftState] = {}
    problems = []
    for state in states:
        process = (state.node, state.boot, state.group, state.member)
        earlier = before.get(process)
        before[process] = state
        if earlier is not None:
            for name in ("term", "commit", "applied"):
                then, now = getattr(earlier, name), getattr(state, name)
                if now < then:
                    problems.append(f"raft: R5 {name} of {state.group} fell from {then} to {now} on {_tell(state)}")
        if not state.applied <= state.commit <= state.last_index:
            problems.append(
                f"raft: R5 applied {state.applied} ≤ commit {state.commit} ≤ last {state.last_index} of {state.group} "
                f"does not hold on {_tell(state)}"
            )
    return problems


def check_votes(states: Iterable[RaftState], promises: Iterable[RaftPromise] = ()) -> list[str]:
    """R6: one vote per term: within a process, and for ever after a message that left has told it."""
    told: dict[tuple[str, str, str, int, int], RaftPromise] = {}
    held: dict[tuple[str, int, str, int, int], RaftState] = {}
    problems = []
    for fact in in_order(states, promises):
        if not fact.vote:
            continue
        first: RaftPromise | RaftState
        life = (fact.node, fact.incarnation, fact.group, fact.member, fact.term)
        if isinstance(fact, RaftState):
            first = held.setdefault((fact.node, fact.boot, fact.group, fact.member, fact.term), fact)
            first = told.get(life, first)
        else:
            first = told.setdefault(life, fact)
        if first.vote != fact.vote:
            problems.append(
                f"raft: R6 {_tell(fact)} votes for {fact.vote} in term {fact.term} of {fact.group}, "
                f"and had voted for {first.vote}: {_tell(first)}"
            )
    return problems


def in_order(states: Iterable[RaftState], promises: Iterable[RaftPromise]) -> list[RaftPromise | RaftState]:
    """Both by time; what was promised at a moment stands before what was believed then."""
    facts: list[RaftPromise | RaftState] = [*promises, *states]
    facts.sort(key=lambda fact: fact.at_ns)
    return facts


def check_committed_stays(states: Iterable[RaftState]) -> list[str]:
    """R7: what a process knew as committed it never cuts off again (bytes: ``check_hashes``)."""
    highest: dict[tuple[str, int, str, int], RaftState] = {}
    problems = []
    for state in states:
        process = (state.node, state.boot, state.group, state.member)
        known = highest.get(process)
        if known is not None and state.last_index < known.commit:
            problems.append(
                f"raft: R7 {_tell(state)} ends at {state.last_index} in {state.group}, "
                f"and knew {known.commit} as committed: {_tell(known)}"
            )
        if known is None or state.commit >= known.commit:
            highest[process] = state
    return problems


def _meet(one: tuple[tuple[int, ...], ...], other: tuple[tuple[int, ...], ...]) -> bool:
    """Whether every quorum of one configuration meets every quorum of the other."""
    return any(len(a) // 2 + 1 + len(b) // 2 + 1 > len({*a, *b}) for a in one for b in other)


def check_configurations(states: Iterable[RaftState]) -> list[str]:
    """R8: quorums of each configuration meet those of the next, where a leader was seen to write just that one entry in
    between; R9: only a voter begins to lead, or who may have been one before a newer configuration in its log that it
    does not know to be committed: perhaps only it can commit that."""
    configurations: dict[tuple[str, int, str, int], list[RaftState]] = {}
    begun: set[tuple[str, int, int]] = set()
    problems = []
    for state in states:
        seen = configurations.setdefault((state.node, state.boot, state.group, state.member), [])
        if seen and seen[-1].voters == state.voters:
            seen[-1] = state
        elif state.voters:
            seen.append(state)
        key = (state.group, state.term, state.member)
        if state.role == LEADER and key not in begun:
            begun.add(key)
            is_open = state.commit < state.configuration_index
            if not is_open and not any(state.member in half for half in state.voters):
                problems.append(f"raft: R9 {_tell(state)} leads {state.group}, its voters are {state.voters}")
    for seen in configurations.values():
        problems += [
            f"raft: R8 quorums of {before.voters} and {after.voters} need not meet in {after.group}: {_tell(after)}"
            for before, after in pairwise(seen)
            if before.role == after.role == LEADER
            and before.term == after.term
            and after.last_index == before.last_index + 1
            and not _meet(before.voters, after.voters)
        ]
    return problems


def check_promises(states: Iterable[RaftState], promises: Iterable[RaftPromise]) -> list[str]:
    """R10, R11: what a message implied is there in every later life of the same disk: the term, and an evidenced end of
    the log that is at least as new."""
    terms: dict[tuple[str, str, str, int], RaftPromise] = {}
    ends: dict[tuple[str, str, str, int], RaftPromise] = {}
    problems = []
    for fact in in_order(states, promises):
        life = (fact.node, fact.incarnation, fact.group, fact.member)
        if isinstance(fact, RaftPromise):
            if life not in terms or terms[life].term < fact.term:
                terms[life] = fact
            if life not in ends or (ends[life].last_term, ends[life].last_index) < (fact.last_term, fact.last_index):
                ends[life] = fact
            continue
        promise = terms.get(life)
        if promise is not None and fact.boot > promise.boot and fact.term < promise.term:
            problems.append(
                f"raft: R10 {_tell(promise)} spoke in term {promise.term} of {fact.group}, "
                f"{_tell(fact)} is in term {fact.term}"
            )
            del terms[life]
        end = ends.get(life)
        if (
            end is not None
            and fact.boot > end.boot
            and (fact.last_term, fact.last_index) < (end.last_term, end.last_index)
        ):
            problems.append(
                f"raft: R10 R11 {_tell(end)} said that its log of {fact.group} ends at {end.last_index} "
                f"(term {end.last_term}), {_tell(fact)} ends at {fact.last_index} (term {fact.last_term})"
            )
            del ends[life]
    return problems
