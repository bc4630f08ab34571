"""How golden scripts write things: entries, configurations, messages, blocks, events, one line each.

``7@3`` is the entry at index 7 of term 3, ``·`` a leader's empty one, ``!`` one whose bytes nobody here can read;
``{1 2 3}`` a configuration, ``{1 2 4 < 1 2 3}`` a joint one with its outgoing half after ``<``, ``+5`` a learner,
``~3`` a voter that will learn. ``1→2`` is a message.
"""

from __future__ import annotations

from collections.abc import Iterable

from jetstore.raft.log import Entry
from jetstore.raft.membership import Configuration, decode_configuration, is_configuration
from jetstore.raft.message import Answer, Message, MessageKind
from jetstore.raft.ready import (
    CheckpointFetch,
    CheckpointWanted,
    Event,
    Fenced,
    HardState,
    LeaderChanged,
    ReadState,
    Ready,
    Removed,
)

K = MessageKind


def show_configuration(c: Configuration) -> str:
    parts = [" ".join(map(str, sorted(c.voters)))]
    if c.is_joint:
        parts.append("<")
        parts += [f"~{m}" if m in c.learners_next else str(m) for m in sorted(c.voters_outgoing)]
    parts += [f"+{m}" for m in sorted(c.learners)]
    if c.is_joint and not c.auto_leave:
        parts.append("stays")
    return "{" + " ".join(parts) + "}"


def show_entry(entry: Entry) -> str:
    where = f"{entry.index}@{entry.term}"
    if entry.data is None:
        return f"{where} !"
    if entry.data == b"":
        return f"{where} ·"
    if is_configuration(entry.data):
        return f"{where} {show_configuration(decode_configuration(entry.data))}"
    text = entry.data.decode()
    return f"{where} {text if len(text) <= 12 else f'{text[:6]}…({len(text)})'}"


def show_entries(entries: Iterable[Entry]) -> str:
    return ", ".join(show_entry(entry) for entry in entries)


def show_message(m: Message) -> str:
    """One line: who to whom, term, what."""
    last = f"last {m.last_index}@{m.last_term}"
    match m.kind:
        case K.PRE_VOTE | K.VOTE:
            what = ("pre-vote? " if m.kind is K.PRE_VOTE else "vote? ") + last + (" (forced)" if m.is_forced else "")
        case K.PRE_VOTE_RESPONSE | K.VOTE_RESPONSE:
            what = "pre-vote " if m.kind is K.PRE_VOTE_RESPONSE else "vote "
            what += "refused" if m.is_rejected else "granted"
        case K.APPEND:
            what = f"append after {m.index}@{m.log_term}: {show_entries(m.entries) or 'nothing'}; commit {m.commit}"
        case K.APPEND_RESPONSE if m.is_rejected:
            what = f"refuses after {m.index}, try {m.hint_index}@{m.hint_term}; {last}"
        case K.APPEND_RESPONSE:
            what = f"matches {m.index}; {last}"
        case K.HEARTBEAT:
            what = f"heartbeat commit {m.commit}" + (" (quiescent)" if m.is_quiescent else "")
        case K.HEARTBEAT_RESPONSE:
            what = f"alive; {last}"
        case K.SNAPSHOT:
            what = f"fetch my checkpoint ≥ {m.index}@{m.log_term}"
        case K.TIMEOUT_NOW:
            what = "stand now"
        case K.READ_INDEX:
            what = f"read-index? #{m.context}"
        case K.READ_INDEX_RESPONSE:
            what = f"read-index #{m.context}: " + ("ask later" if m.is_rejected else str(m.index))
        case K.REPAIR:
            what = f"have you {m.index}@{m.log_term}?"
        case K.REPAIR_RESPONSE:
            what = f"{m.index}@{m.log_term}: " + m.answer.name.lower()
            if m.answer is Answer.COMPACTED:
                what += f" {m.commit}"
            elif m.entries:
                what += f" {show_entries(m.entries)}"
        case _:
            what = f"{m.kind.name.lower().replace('_', ' ')} {m.index}"
    return f"{m.sender}→{m.to} t{m.term} {what}"


def show_hard_state(hard: HardState) -> str:
    return f"t{hard.term} vote {hard.vote or '-'}"


def show_ready(ready: Ready) -> str:
    parts = []
    if ready.hard_state is not None:
        parts.append(show_hard_state(ready.hard_state))
    if ready.repairs:
        parts.append(f"repairs {show_entries(ready.repairs)}")
    if ready.entries:
        parts.append(show_entries(ready.entries))
    return "; ".join(parts) or "nothing"


def show_event(event: Event) -> str:
    match event:
        case ReadState(context, None):
            return f"read {context}: no leader confirms it"
        case ReadState(context, index):
            return f"read {context}: up to date once {index} is applied"
        case CheckpointWanted(member, index):
            return f"member {member} needs a checkpoint ≥ {index}"
        case CheckpointFetch(source, index, term):
            return f"wants a checkpoint ≥ {index}@{term} from {source}"
        case LeaderChanged(leader, term):
            return f"leader {leader or 'unknown'} in t{term}"
        case Removed(index):
            return f"is no member any more since {index}"
        case Fenced(member, acked, evidenced):
            return f"counts member {member} no longer: it had {acked}, now has {evidenced}"
    raise AssertionError(event)
