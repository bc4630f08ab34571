"""What a message does, by kind, sender and term, before anybody looks at what it says.

- Who is not in the configuration in effect is heard only as far as it may know a newer one: candidates and leaders; not
  its votes, acknowledgements or reads (R9). Who is proved to be removed is told so.
- A higher term makes everybody a follower; but nobody's term changes by a pre-vote, and a candidate is not even heard
  while a leader is (thesis §4.2.3, 9.6).
- A lower term is answered with the higher one, so that whoever comes back from a partition learns it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jetstore.raft.message import Answer, Message, MessageKind
from jetstore.raft.ready import CheckpointFetch
from jetstore.raft.repair import answer
from jetstore.types import Term

if TYPE_CHECKING:
    from jetstore.raft.core import RaftCore

_FROM_LEADER = frozenset((MessageKind.APPEND, MessageKind.HEARTBEAT, MessageKind.SNAPSHOT, MessageKind.TIMEOUT_NOW))
_FROM_ANYBODY = _FROM_LEADER | {MessageKind.REPAIR, MessageKind.REPAIR_RESPONSE, MessageKind.REMOVED}
"""Heard whoever the sender is: a leader may be newer than the configuration here, and bytes are bytes."""
_CANVASS = frozenset((MessageKind.PRE_VOTE, MessageKind.VOTE))
_COUNTED = frozenset(
    (
        MessageKind.PRE_VOTE_RESPONSE,
        MessageKind.VOTE_RESPONSE,
        MessageKind.APPEND_RESPONSE,
        MessageKind.HEARTBEAT_RESPONSE,
        MessageKind.READ_INDEX,
    )
)
"""Heard from members of the configuration only (R9)."""


def step(core: RaftCore, message: Message) -> None:
    """See ``RaftCore.step``."""
    assert message.to == core.member, f"a message to member {message.to} at member {core.member}"
    kind = message.kind
    if message.sender not in core.configuration.members and _ignores_stranger(core, message):
        return
    if core.is_quiescent and not message.is_quiescent:
        core.wake()
    if message.term > core.term:
        if kind in _CANVASS and core.election.protects_leader(message):
            return
        if kind is MessageKind.PRE_VOTE or (kind is MessageKind.PRE_VOTE_RESPONSE and not message.is_rejected):
            pass  # nobody's term changes by a pre-vote
        else:
            core.become_follower(message.term, message.sender if kind in _FROM_LEADER else 0)
    elif message.term < core.term:
        _answer_late(core, message)
        return
    _HANDLERS[kind](core, message)


def _ignores_stranger(core: RaftCore, message: Message) -> bool:
    """Whether a message from outside the configuration is not to be heard.

    Candidates and leaders are: their configuration may be newer than the one here. Unless the committed one here
    proves that the sender was removed: then it is told.
    """
    if message.kind in _FROM_ANYBODY:
        return False
    if message.kind in _CANVASS and core.log.faulty_index is not None:
        core.election.ask_for_bytes(message.sender)
    committed = core.configurations.at(core.log.committed_index)
    if message.sender < committed.next_member and message.sender not in committed.members:
        core.send(MessageKind.REMOVED, message.sender, index=core.log.committed_index)
        return True
    return message.kind in _COUNTED


def _answer_late(core: RaftCore, message: Message) -> None:
    """A message of an older term: whoever sent it learns the newer one."""
    kind = message.kind
    if kind in _FROM_LEADER:
        core.send(MessageKind.HEARTBEAT_RESPONSE, message.sender)
    elif kind is MessageKind.PRE_VOTE:
        core.send(MessageKind.PRE_VOTE_RESPONSE, message.sender, is_rejected=True)
    elif kind is MessageKind.VOTE:
        core.send(MessageKind.VOTE_RESPONSE, message.sender, is_rejected=True)
    elif kind is MessageKind.REPAIR:
        _handle_repair(core, message)
    elif kind is MessageKind.REPAIR_RESPONSE:  # the bytes of an entry are the same in every term
        _handle_repair_response(core, message)
    elif kind is MessageKind.REMOVED:
        _handle_removed(core, message)


def _handle_repair(core: RaftCore, message: Message) -> None:
    reply, entries, covered = answer(core.log, message.index, message.log_term)
    core.send(
        MessageKind.REPAIR_RESPONSE,
        message.sender,
        index=message.index,
        log_term=message.log_term,
        answer=reply,
        entries=entries,
        commit=covered,
    )


def _handle_repair_response(core: RaftCore, message: Message) -> None:
    index, term = message.index, message.log_term
    if not core.log.unreadable(index, term):
        return
    if message.answer is Answer.HAVE:
        (entry,) = message.entries
        assert (entry.index, entry.term) == (index, term), "the bytes of another entry"
        core.repair(entry)
        if index == core.election.asked_index:
            is_named = message.sender in core.configurations.everybody()
            core.election.ask_for_bytes(0 if is_named else message.sender)
    elif message.answer is Answer.COMPACTED:
        core.events.append(CheckpointFetch(message.sender, max(index, message.commit), Term(0)))
    if core.leading is not None and message.term == core.term:
        core.leading.heard_answer(message)


def _handle_removed(core: RaftCore, message: Message) -> None:
    core.removed(message.index)


def _to_leader(name: str) -> Callable[[RaftCore, Message], None]:
    """A handler of what only a leader hears."""

    def handle(core: RaftCore, message: Message) -> None:
        if core.leading is not None:
            getattr(core.leading, name)(message)

    return handle


_HANDLERS: dict[MessageKind, Callable[[RaftCore, Message], None]] = {
    MessageKind.PRE_VOTE: lambda core, m: core.election.handle_vote(m),
    MessageKind.PRE_VOTE_RESPONSE: lambda core, m: core.election.handle_pre_vote_response(m),
    MessageKind.VOTE: lambda core, m: core.election.handle_vote(m),
    MessageKind.VOTE_RESPONSE: lambda core, m: core.election.handle_vote_response(m),
    MessageKind.APPEND: lambda core, m: core.follower.handle_append(m),
    MessageKind.APPEND_RESPONSE: _to_leader("handle_append_response"),
    MessageKind.HEARTBEAT: lambda core, m: core.follower.handle_heartbeat(m),
    MessageKind.HEARTBEAT_RESPONSE: _to_leader("handle_heartbeat_response"),
    MessageKind.SNAPSHOT: lambda core, m: core.follower.handle_snapshot(m),
    MessageKind.TIMEOUT_NOW: lambda core, m: core.election.handle_timeout_now(m),
    MessageKind.READ_INDEX: _to_leader("handle_read_index"),
    MessageKind.READ_INDEX_RESPONSE: lambda core, m: core.follower.handle_read_index_response(m),
    MessageKind.REPAIR: _handle_repair,
    MessageKind.REPAIR_RESPONSE: _handle_repair_response,
    MessageKind.REMOVED: _handle_removed,
}
