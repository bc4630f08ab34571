"""What is to be written, what is on its way to disk, and which messages wait for it.

Three numbers count changes of (term, vote): made, handed out, durable. A message carries the term it was made in; it
leaves once the hard state of that moment is durable (R10), in the order it was made. Entries are told apart by index
alone, so a truncation caps every write that is under way: what those wrote from there on counts for nothing, whatever
comes to stand there, even the very same (term, index) again: in the journal, the cut stands between (ABA).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from jetstore.raft.log import Entry
from jetstore.raft.message import Answer, Message, MessageKind
from jetstore.raft.ready import HardState, Ready, Token
from jetstore.types import RaftIndex, Term

if TYPE_CHECKING:
    from jetstore.raft.core import RaftCore

_CANVASS = (MessageKind.PRE_VOTE, MessageKind.VOTE)


class Writes:
    """One member's outputs, in front of its journal and behind it."""

    def __init__(self, core: RaftCore) -> None:
        self._core = core
        self._log = core.log
        self.repairs: list[Entry] = []
        """Slots whose bytes came back and are to be written."""
        self._hard_version = 0
        self._handed_version = 0
        self._durable_version = 0
        self._handed_index = core.log.last_index
        self._handed_number = 0  # tokens handed out
        self._stored_number = 0  # and handed back
        self._caps: list[tuple[int, RaftIndex]] = []  # (token number, index): up to that token nothing later counts
        self._held: deque[tuple[int, Message]] = deque()
        self._messages: list[Message] = []

    # -- messages -------------------------------------------------------------------------------------------------

    @property
    def is_hard_state_durable(self) -> bool:
        """Whether term and vote as they are now are durable."""
        return self._durable_version == self._hard_version

    def post(self, message: Message) -> None:
        """Send a message once the term and vote of this moment are durable."""
        if self._durable_version == self._hard_version:
            self._messages.append(message)
        else:
            self._held.append((self._hard_version, message))

    def take_messages(self) -> list[Message]:
        """What may leave now."""
        messages, self._messages = self._messages, []
        return messages

    def hard_state_changed(self, *, is_new_term: bool) -> None:
        """Term or vote are about to change. In a new term, nobody needs to vote for what this member stood for."""
        if is_new_term:
            self._messages = [message for message in self._messages if message.kind not in _CANVASS]
            self._held = deque(held for held in self._held if held[1].kind not in _CANVASS)
        self._hard_version += 1

    # -- blocks ---------------------------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """See ``RaftCore.has_ready``."""
        return self._log.last_index > self._handed_index or self.has_hard_state() or bool(self.repairs)

    def has_hard_state(self) -> bool:
        """See ``RaftCore.has_hard_state``."""
        return self._handed_version != self._hard_version

    def ready_hard_state(self) -> Ready:
        """See ``RaftCore.ready_hard_state``."""
        assert self.has_hard_state()
        hard_state = HardState(self._core.term, self._core.vote)
        self._handed_version = self._hard_version
        return Ready(hard_state, [], Term(0), Token(0, hard_state, self._handed_version, Term(0), RaftIndex(0)))

    def ready(self, max_bytes: int | None = None) -> Ready:
        """See ``RaftCore.ready``."""
        log = self._log
        hard_state = None
        if self._handed_version != self._hard_version:
            hard_state = HardState(self._core.term, self._core.vote)
            self._handed_version = self._hard_version
        repairs: tuple[Entry, ...] = ()
        if self.repairs:
            repairs, max_bytes = self._take_repairs(max_bytes)
        first = RaftIndex(self._handed_index + 1)
        entries: list[Entry] = []
        if first <= log.last_index and not (repairs and max_bytes == 0):
            if max_bytes is None:
                entries = log.slice(first, log.last_index)
            else:
                entries = log.slice_bytes(first, log.last_index, max_bytes)
            prev_term = log.term_at(self._handed_index)
            assert prev_term is not None
            self._handed_index = entries[-1].index
            last_term, last_index = entries[-1].term, entries[-1].index
        else:
            prev_term = last_term = Term(0)
            last_index = RaftIndex(0)
        self._handed_number += 1
        token = Token(self._handed_number, hard_state, self._handed_version, last_term, last_index, repairs)
        return Ready(hard_state, entries, prev_term, token, repairs)

    def _take_repairs(self, max_bytes: int | None) -> tuple[tuple[Entry, ...], int | None]:
        """Repaired slots that still hold those entries, at least one, and how many bytes are left for entries."""
        log = self._log
        waiting = [entry for entry in self.repairs if log.term_at(entry.index) == entry.term]
        self.repairs = []
        if max_bytes is None:
            return tuple(waiting), None
        for position, entry in enumerate(waiting):
            max_bytes -= len(entry.data or b"")
            if max_bytes <= 0:
                self.repairs = waiting[position + 1 :]
                return tuple(waiting[: position + 1]), 0
        return tuple(waiting), max_bytes

    def stored(self, token: Token) -> None:
        """Note what is durable, and let go what waited for it."""
        if token.hard_state is not None:
            self._durable_version = max(self._durable_version, token.hard_version)
            while self._held and self._held[0][0] <= token.hard_version:
                self._messages.append(self._held.popleft()[1])
        if not token.number:  # a hard state that overtook what waits for room
            return
        assert token.number == self._stored_number + 1, "completions must come in the order of their Readies"
        self._stored_number = token.number
        log = self._log
        for entry in token.repaired:
            log.repaired(entry.index, entry.term)
        if self._caps:
            self._stored_before_truncation(token)
        elif token.index > log.checkpoint_index:
            assert log.stored(token.term, token.index), "a write of another entry counted"

    def _stored_before_truncation(self, token: Token) -> None:
        """A write that was under way when the log was cut: its entries from there on are others now (ABA).

        Also when the same (term, index) has come back since: in the journal, the cut stands between.
        """
        log = self._log
        counts_to = min((index for number, index in self._caps if token.number <= number), default=token.index)
        index = min(counts_to, token.index)
        term = log.term_at(index)
        if index > log.checkpoint_index and term is not None:
            log.stored(term, index)
        self._caps = [cap for cap in self._caps if cap[0] > token.number]

    # -- the log changed ------------------------------------------------------------------------------------------

    def truncated(self, index: RaftIndex) -> None:
        """Entries ≥ ``index`` are gone: what comes to stand there is to be written, what is under way is void."""
        self._handed_index = min(self._handed_index, RaftIndex(index - 1))
        self._void_from(index)

    def restored(self, index: RaftIndex, *, stays: bool) -> None:
        """The log starts behind ``index``; what it held beyond stays or is gone. A *never* about less is not said."""
        last_index = self._log.last_index
        self._void_from(RaftIndex(last_index + 1) if stays else RaftIndex(index + 1))
        self._handed_index = max(index, min(self._handed_index, last_index))

        def is_true(message: Message) -> bool:
            return message.answer is not Answer.NEVER or message.index > index

        self._messages = [message for message in self._messages if is_true(message)]
        self._held = deque(held for held in self._held if is_true(held[1]))

    def _void_from(self, index: RaftIndex) -> None:
        if self._stored_number < self._handed_number:
            self._caps.append((self._handed_number, RaftIndex(index - 1)))
