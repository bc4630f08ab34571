"""A stream that exists and cannot be opened: its subjects stay taken, and everybody is told so."""

from __future__ import annotations

from jetstore.errors import Corruption
from jetstore.meta.state import StreamAssignment
from jetstore.meta.stream_key import name_of
from jetstore.model.api_errors import api_error
from jetstore.node.ports import Inbound, Outlet
from jetstore.node.pub_ack import refused


class LostStream:
    """Answers every publish with 10008: neither "not found" nor silence would be true."""

    refuses = True
    """Where the stream is led by another node, publishes go there (as ``Ingest.refuses``)."""

    def __init__(self, assignment: StreamAssignment, member: int, reason: Corruption, outlet: Outlet) -> None:
        """Takes the stream's subjects at once. ``member``: the number under which its promises were made."""
        self.assignment = assignment
        self.member = member
        self.uid = assignment.uid
        self.reason = reason
        self._outlet = outlet
        self._answer = refused(name_of(assignment.name), api_error("JSClusterNotAvailErr"))
        self._subscriptions = [outlet.subscribe(subject.encode(), self) for subject in assignment.config["subjects"]]

    def on_messages(self, batch: Inbound) -> None:
        """Definitely not stored."""
        replies = [reply for reply in batch.replies if reply]
        if replies:
            self._outlet.publish(replies, (), [self._answer] * len(replies))

    def close(self) -> None:
        """The stream was deleted."""
        for subscription in self._subscriptions:
            subscription.close()
