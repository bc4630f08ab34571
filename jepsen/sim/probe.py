"""What a replicated server shows to the harness: what it believes of its groups, and levers that nemeses pull."""

from __future__ import annotations

from typing import Protocol

from jepsen.history import AppliedHash, RaftPromise, RaftState, Seen


class Probe(Protocol):
    """One running node. Asked between callbacks; nothing here may wait or change a promise."""

    def states(self) -> list[RaftState]:
        """What each of its groups believes now, in a fixed order."""

    def promises(self) -> list[RaftPromise]:
        """What messages that left since the last question imply."""

    def hashes(self) -> list[AppliedHash]:
        """New since the last question."""

    def leads(self, stream: str) -> bool:
        """Whether this node believes that it leads the stream; "" = the metadata."""

    def contents(self, stream: str) -> dict[int, Seen] | None:
        """All messages of a stream as this node holds them; None without a replica here."""

    def transfer(self, group: str, to: str) -> bool:
        """Ask the group's leader, if it is here, to hand over to that machine's member; whether it was asked."""

    def checkpoint(self) -> None:
        """Make checkpoints of what has anything new, now (S2)."""
