"""Seeded defects of the Raft core, one at a time: each must be found, and by the invariant that it breaks.

A mutation names a module, a piece of its source and what to put there instead. ``applied`` compiles the changed module
and lends its code objects to the functions that are in use, so nothing else has to know. If a piece of source is no
longer there, the mutation is stale: write it anew for the code that took its place, do not drop it.

``mutation_hunt.py`` looks for them, and prints the tables of docs/testing.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType


@dataclass(frozen=True, slots=True)
class Mutation:
    """One defect."""

    name: str
    module: str
    old: str
    new: str
    rules: tuple[str, ...] = ()
    """What the random cluster may report: invariants, ``core`` for an assertion of the core itself. Empty: the cluster
    is not asked, since nothing unsafe follows from it."""
    scripts: tuple[str, ...] = ()
    """Golden scripts that come out differently, and tests (``module.function``) that fail."""


def _m(name: str, module: str, old: str, new: str, rules: str = "", scripts: str = "") -> Mutation:
    return Mutation(name, f"jetstore.raft.{module}", old, new, tuple(rules.split()), tuple(scripts.split()))


MUTATIONS = [
    # -- elections: R1, R3, R6, R11 -----------------------------------------------------------------------------------
    _m(
        "a restart forgets the vote",
        "core",
        "self.vote = hard_state.vote",
        "self.vote = 0",
        "R6 R1",
        "hard_state_ordering",
    ),
    _m(
        "a second candidate of a term gets a vote, too",
        "election",
        "is_free = core.vote == message.sender or (core.vote == 0 and core.leader == 0)",
        "is_free = True",
        "R6 R1",
        "test_paper_5_1_2_elections.test_paper_5_2_one_vote_per_term_first_come_first_served",
    ),
    _m(
        "a vote for a log that ends earlier",
        "election",
        "is_up_to_date = (message.last_term, message.last_index) >= (log.last_term, log.last_index)",
        "is_up_to_date = True",
        "R11 R3 R7",
        "faulty_votes",
    ),
    _m(
        "logs compared by length alone",
        "election",
        "is_up_to_date = (message.last_term, message.last_index) >= (log.last_term, log.last_index)",
        "is_up_to_date = message.last_index >= log.last_index",
        "R11 R3",
        "figure_7",
    ),
    _m(
        "a vote by the readable log",
        "election",
        "is_up_to_date = (message.last_term, message.last_index) >= (log.last_term, log.last_index)",
        "is_up_to_date = log.faulty_index is not None or (message.last_term, message.last_index) "
        ">= (log.last_term, log.last_index)",
        "R11 R3",
        "faulty_votes",
    ),
    _m(
        "recovery cuts the log at the first unreadable entry",
        "core",
        "self.abstains_term = Term(0)",
        "self.abstains_term = Term(0); log.faulty_index and log.truncate_from(log.faulty_index)",
        "R11 R7",
        "faulty_follower faulty_votes faulty_leader_have",
    ),
    _m(
        "a candidate names a shorter log than it has evidence of",
        "election",
        "last_index=log.last_index,",
        "last_index=log.last_index if log.faulty_index is None else RaftIndex(log.faulty_index - 1),",
        "R11",
    ),
    _m(
        "pre-votes are given away",
        "election",
        "is_granted = is_free and is_up_to_date",
        "is_granted = is_up_to_date and (is_free or is_pre_vote) or is_pre_vote",
        "",
        "pre_vote figure_7",
    ),
    _m(
        "a leader that is heard protects nobody from candidates",
        "election",
        "return core.leader != 0 and self.elapsed_ticks < core.options.election_ticks",
        "return False",
        "",
        "pre_vote",
    ),
    _m(
        "votes of learners and strangers count",
        "election",
        "return vote_result(configuration.voters, configuration.voters_outgoing, self.votes)",
        "return vote_result(frozenset(configuration.members) | set(self.votes), frozenset(), self.votes)",
        "R9 R6 R1",
        "test_paper_6_7.test_paper_6_votes_of_learners_do_not_count",
    ),
    _m(
        "an election is decided by the incoming half alone",
        "election",
        "return vote_result(configuration.voters, configuration.voters_outgoing, self.votes)",
        "return vote_result(configuration.voters, frozenset(), self.votes)",
        "R6 R9 R1 R3 R4",
        "test_paper_6_7.test_paper_6_in_the_joint_configuration_both_majorities_elect",
    ),
    _m(
        "answers to an earlier candidacy count",
        "inbox",
        "    elif message.term < core.term:\n        _answer_late(core, message)\n        return",
        "    elif message.term < core.term and kind is not MessageKind.VOTE_RESPONSE:\n"
        "        _answer_late(core, message)\n        return",
        "R6 R9 R1",
        "test_paper_5_1_2_elections.test_paper_5_1_an_answer_of_an_older_term_counts_for_nothing",
    ),
    _m(
        "terms go back",
        "core",
        "        if term > self.term:\n            self.set_hard_state(term, 0)\n            self.follower.new_term()",
        "        if term > self.term:\n            self.set_hard_state(term, 0)\n            self.follower.new_term()\n"
        "        if leader and not self.log.last_term:\n            self.term = Term(self.term - 1)",
        "R5 R10 R6 core",
    ),
    # -- what is told before it is durable: R10 -----------------------------------------------------------------------
    _m(
        "messages do not wait for term and vote",
        "writes",
        "        if self._durable_version == self._hard_version:\n            self._messages.append(message)",
        "        if True:\n            self._messages.append(message)",
        "R10",
        "hard_state_ordering sans_io",
    ),
    _m(
        "entries are acknowledged before they are durable",
        "follower",
        "index = min(self.verified_index, log.durable_index)",
        "index = min(self.verified_index, log.last_index)",
        "R10",
        "storage_aba",
    ),
    _m(
        "the leader counts its own copy before it is durable",
        "leader",
        "        if log.faulty_index is None:\n            return log.durable_index",
        "        if log.faulty_index is None:\n            return log.last_index",
        "R5",
        "hard_state_ordering",
    ),
    _m(
        "storage-done of an older term's entry counts (ABA)",
        "writes",
        "        self._handed_index = min(self._handed_index, RaftIndex(index - 1))\n        self._void_from(index)",
        "        self._handed_index = min(self._handed_index, RaftIndex(index - 1))",
        "R10 core",
        "storage_aba storage_abba",
    ),
    _m(
        "unreadable entries are acknowledged",
        "follower",
        "index = min(index, RaftIndex(log.faulty_index - 1))",
        "index = RaftIndex(index)",
        "R10",
        "faulty_follower",
    ),
    # -- replication and commit: R2, R4, R5, R7, R9 -------------------------------------------------------------------
    _m(
        "an append is taken whatever stands before it",
        "follower",
        "if term != message.log_term and not is_dropped:",
        "if prev_index > log.last_index:",
        "R2 R3 R4 R10 core",
        "conflict_rule figure_7",
    ),
    _m(
        "a short append cuts off what comes after it",
        "follower",
        "        entries = message.entries\n        for position",
        "        entries = message.entries\n"
        "        end = RaftIndex(message.index + len(entries) + 1)\n"
        "        if log.committed_index < end <= log.last_index:\n            core.truncate_from(end)\n"
        "        for position",
        "R10 R7 core",
        "",
    ),
    _m(
        "a conflict at or below the commit index is cut off, too",
        "log",
        'assert self.committed_index < index, f"truncation at {index}, committed is {self.committed_index}"',
        "pass",
        "",
        "conflict_rule",
    ),
    _m(
        "an entry of an older term is committed by counting",
        "leader",
        "if index <= log.committed_index or log.term_at(index) != core.term:",
        "if index <= log.committed_index:",
        "R5 R7",
        "figure_8_unsafe",
    ),
    _m(
        "one acknowledgement is enough",
        "leader",
        "index = committed_index(configuration.voters, configuration.voters_outgoing, self._match)",
        "index = max(self._match(member) for member in configuration.voters)",
        "R5 R9 R4",
        "noop_on_election",
    ),
    _m(
        "copies of learners count",
        "leader",
        "index = committed_index(configuration.voters, configuration.voters_outgoing, self._match)",
        "index = committed_index(configuration.all_members, frozenset(), lambda m: self._match(m) if m == "
        "self.core.member or m in self.progress else 0)",
        "R5 R9",
        "learners",
    ),
    _m(
        "copies of removed members count",
        "leader",
        "index = committed_index(configuration.voters, configuration.voters_outgoing, self._match)",
        "index = committed_index(core.configurations.at(log.committed_index).voters, frozenset(), lambda m: "
        "self._match(m) if m == self.core.member or m in self.progress else log.last_index)",
        "R5 R9",
    ),
    _m(
        "a joint commit needs the incoming half alone",
        "leader",
        "index = committed_index(configuration.voters, configuration.voters_outgoing, self._match)",
        "index = committed_index(configuration.voters, frozenset(), self._match)",
        "R5 R9",
        "joint_needs_both",
    ),
    _m(
        "a follower believes a commit index beyond what it verified",
        "follower",
        "core.advance_commit(min(message.commit, self.verified_index))\n        is_idle",
        "core.advance_commit(min(message.commit + 1, log.last_index))\n        is_idle",
        "R5 R4 core",
    ),
    _m(
        "what is not committed is applied",
        "log",
        "last = min(self.committed_index, self.durable_index)",
        "last = self.durable_index",
        "R5 R4 core",
        "sans_io",
    ),
    _m(
        "what is committed is applied before it is durable here",
        "log",
        "last = min(self.committed_index, self.durable_index)",
        "last = self.committed_index",
        "R5",
        "test_paper_5_3_replication.test_paper_5_3_two_others_are_a_quorum_without_the_leaders_disk",
    ),
    _m(
        "an installed checkpoint leaves a contradicting suffix",
        "log",
        "stays = self.term_at(index) == term",
        "stays = index <= self.last_index",
        "",
        "test_raft_machine_log.test_a_checkpoint_that_contradicts_the_log_replaces_it",
    ),
    _m(
        "the leader's entries carry the term of the one before",
        "core",
        "entry = Entry(self.term, RaftIndex(log.last_index + 1), data, message_count, cache)",
        "entry = Entry(Term(1), RaftIndex(log.last_index + 1), data, message_count, cache)",
        "R2 R5 core",
    ),
    _m(
        "no empty entry on election",
        "leader",
        'self.term_start_index = self.append(b"").index',
        "self.term_start_index = RaftIndex(self.core.log.last_index + 1)",
        "L3",
        "noop_on_election sans_io",
    ),
    # -- damage: R7, R11 ----------------------------------------------------------------------------------------------
    _m(
        "one 'never' is enough to drop an entry",
        "repair",
        "return vote_result(configuration.voters, configuration.voters_outgoing, votes) is VoteResult.WON",
        "return any(votes.values())",
        "",
        "faulty_leader_never test_raft_damage.test_never_from_a_majority_drops_the_entry_and_all_later_ones",
    ),
    _m(
        "'faulty' counts as 'never'",
        "repair",
        "is Answer.NEVER for member, reply",
        "in (Answer.NEVER, Answer.FAULTY) for member, reply",
        "",
        "test_ctrl_enumeration.test_all_4096_damage_patterns test_raft_damage.test_faulty_proves_nothing_at_all",
    ),
    _m(
        "a trimmed log answers 'never'",
        "repair",
        "return Answer.COMPACTED, (), log.applied_index",
        "return Answer.NEVER, (), RaftIndex(0)",
        "R11 R7 core",
        "faulty_leader_compacted",
    ),
    _m(
        "a repair is taken whatever its term",
        "inbox",
        "    if not core.log.unreadable(index, term):\n        return",
        "    if index not in core.log.faulty:\n        return",
        "",
        "test_raft_damage.test_bytes_of_another_term_are_not_taken",
    ),
    _m(
        "a leader with unreadable entries takes proposals",
        "leader",
        "        if self.core.log.faulty_index is None:\n            self._open()\n            return",
        "        if True:\n            self._open()\n            return",
        "",
        "faulty_leader_waits",
    ),
    _m(
        "who may miss one configuration stands for election",
        "election",
        "and not core.configurations.hidden():",
        "and core.configurations.hidden() <= 1:",
        "",
        "test_core_repair.test_one_hidden_change_and_one_that_never_arrived_are_two",
    ),
    # -- membership: R8, R9 -------------------------------------------------------------------------------------------
    _m(
        "two changes at once (guard a)",
        "conf_change",
        "if core.configurations.index > core.log.committed_index:\n        raise",
        "if False:\n        raise",
        "",
        "one_change_in_flight",
    ),
    _m(
        "a change before the first commit of the term (guard b)",
        "conf_change",
        "if not leader.has_committed_own_term:",
        "if False:",
        "",
        "membership_2015",
    ),
    _m(
        "a configuration counts only when it is committed",
        "core",
        "return self.configurations.current",
        "return self.configurations.at(self.log.committed_index)",
        "R8",
        "configuration_from_append",
    ),
    _m(
        "a truncated configuration stays in use",
        "configurations",
        "while self._steps[-1][0] >= index:",
        "while False:",
        "R8",
        "configuration_from_append",
    ),
    _m(
        "a joint configuration is left before it is committed",
        "conf_change",
        "if core.configurations.index > core.log.committed_index:\n        return",
        "if False:\n        return",
        "",
        "joint_left_when_committed",
    ),
    _m(
        "check-quorum counts removed members and learners",
        "leader",
        "if not is_quorum(configuration.voters, configuration.voters_outgoing, active):",
        "if len(active) < 2:",
        "",
        "learners",
    ),
    _m(
        "no check-quorum",
        "leader",
        "if not is_quorum(configuration.voters, configuration.voters_outgoing, active):",
        "if False:",
        "",
        "check_quorum check_quorum_removed learners",
    ),
    _m(
        "amnesia is taken for damage",
        "replication",
        "return message.last_index < progress.acked_index or message.last_term < acked_term",
        "return False",
        "",
        "amnesia_fenced",
    ),
    _m(
        "answers of an earlier life count",
        "replication",
        "if message.boot < progress.boot:",
        "if False:",
        "",
        "late_ack_of_an_earlier_life",
    ),
    # -- reads, transfer, the rest ------------------------------------------------------------------------------------
    _m(
        "a read needs no round",
        "leader",
        "        if self.is_alone:\n            sequence",
        "        if True:\n            sequence",
        "READ",
        "read_index read_index_stale_leader",
    ),
    _m(
        "a read is answered by a round that was under way before",
        "read_index",
        "while self._waiting and self._waiting[0][2] < sequence:",
        "while self._waiting and self._waiting[0][2] <= sequence + 3:",
        "",
        "read_index test_thesis_rules.test_thesis_6_4_an_answer_to_an_earlier_request_proves_nothing",
    ),
    _m(
        "a lease instead of a round, although nobody keeps it",
        "leader",
        "        if self.is_alone:\n            sequence",
        "        if self.is_alone or self._quorum_ticks < self.core.options.election_ticks:\n            sequence",
        "READ",
        "read_index_stale_leader",
    ),
    _m(
        "a new leader reads before its first commit",
        "leader",
        "if self.has_committed_own_term:\n            is_taken",
        "if True:\n            is_taken",
        "READ",
        "read_index_new_leader",
    ),
    _m(
        "proposals go on during a transfer",
        "leader",
        "            self._transfer_ticks = 0\n            self.closed_by = ",
        "            self._transfer_ticks = 0\n            self.was_closed_by = ",
        "",
        "transfer transfer_abort",
    ),
    _m(
        "a transfer never ends",
        "leader",
        "if self._transfer_ticks >= options.election_ticks:",
        "if False:",
        "",
        "transfer_abort",
    ),
    _m(
        "a proposal of an earlier term is taken",
        "core",
        "if term is not None and term != self.term:",
        "if False:",
        "",
        "term_fence",
    ),
    _m(
        "no bound on what is under way",
        "core",
        "if log.unapplied_bytes > self.options.unapplied_bytes_max:",
        "if False:",
        "",
        "flow_control",
    ),
]


# -- applying one -----------------------------------------------------------------------------------------------------


def _functions(namespace: dict[str, object], module: str) -> Iterator[tuple[str, FunctionType]]:
    """Every function and method that is defined in this namespace, by qualified name."""
    for value in list(namespace.values()):
        if isinstance(value, FunctionType) and value.__module__ == module:
            yield value.__qualname__, value
        elif inspect.isclass(value) and value.__module__ == module:
            for member in list(vars(value).values()):
                found = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if isinstance(found, FunctionType):
                    yield found.__qualname__, found


def _body(code: CodeType) -> tuple[object, ...]:
    """What a function does, apart from where it stands in its file."""
    constants = [_body(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, constants


@contextmanager
def applied(mutation: Mutation) -> Iterator[None]:
    """The defect is in the core as long as the block runs."""
    module = import_module(mutation.module)
    source = inspect.getsource(module)
    count = source.count(mutation.old)
    assert count >= 1, f"stale mutation {mutation.name!r}: {mutation.module} has no {mutation.old!r}"
    changed: dict[str, object] = {"__name__": mutation.module}
    exec(compile(source.replace(mutation.old, mutation.new), f"<{mutation.name}>", "exec"), changed)
    replacements = dict(_functions(changed, mutation.module))
    saved: list[tuple[FunctionType, CodeType]] = []
    for name, function in _functions(vars(module), mutation.module):
        twin = replacements.get(name)
        if twin is not None and _body(twin.__code__) != _body(function.__code__):
            saved.append((function, function.__code__))
            function.__code__ = twin.__code__
    assert saved, f"mutation {mutation.name!r} changes nothing"
    try:
        yield
    finally:
        for function, code in saved:
            function.__code__ = code
