"""Whatever happens, in whatever order: no message has two holders, none acknowledged comes again, none is lost.

Random runs of a whole delivery world: publishes, requests, connections that go, acknowledgements of every kind,
deletes, time, a slow log, leaders that come and go. The log alone must give the same consumer again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from deep import IS_DEEP
from delivery_world import Got, S, World

from jetstore.limits import Limits
from jetstore.node.logged_time import LATE_NS
from jetstore.store.memory_index import MemoryIndex
from jetstore.store.memory_log import MemoryLog
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid, RaftIndex, Term

ACK_WAIT_S = 5.0


class Run:
    """One random history and what its clients know."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        batch = self.dice.choice([1, 3, 1000])
        self.world = World(limits=Limits(delivery_batch_messages=batch), max_msgs_per_subject=-1)
        self.push = self.dice.random() < 0.4
        self.max_ack_pending = self.dice.choice([3, 20, 1000])
        fields: dict[str, Any] = {"ack_wait": round(ACK_WAIT_S * S), "max_ack_pending": self.max_ack_pending}
        if self.push:
            fields |= {"deliver_subject": "to", "max_waiting": 0}
            self.world.outlet.listen(b"to")
        if self.dice.random() < 0.5:
            fields["filter_subject"] = "s.a"
        self.filtered = "filter_subject" in fields
        self.world.consumer(**fields)
        self.held: dict[int, tuple[float, Got]] = {}
        """Sequence → when it was delivered last, and how; until it is acknowledged or given back."""
        self.acked: set[int] = set()
        self.deleted: set[int] = set()
        self.seen: set[int] = set()
        self.wanted: set[int] = set()
        self.consumer_seqs: set[int] = set()
        self.inboxes = 0
        self.leads_since_s = 0.0

    def receive(self) -> None:
        for got in self.world.outlet.taken():
            if not got.reply.startswith(b"$JS.ACK"):
                continue
            attempt, seq, consumer_seq, _ = got.numbers
            assert seq not in self.acked, f"{seq} was acknowledged and came again"
            assert consumer_seq not in self.consumer_seqs, "a consumer sequence was given twice"
            self.consumer_seqs.add(consumer_seq)
            if seq in self.held:
                since, before = self.held[seq]
                # A new leader knows only logged times, not that the log was slow and the client got it later.
                if since > self.leads_since_s:
                    assert got.at_s - since >= ACK_WAIT_S - LATE_NS / 1e9, f"{seq} has two holders"
                assert attempt > before.numbers[0]
            else:
                assert attempt == 1 or seq in self.seen
            assert seq in self.wanted
            self.held[seq] = (got.at_s, got)
            self.seen.add(seq)
        state = self.world.stream.consumers["c"]
        assert state.pending.messages <= self.max_ack_pending

    # -- what can happen ----------------------------------------------------------------------------------------------

    def publish(self) -> None:
        subjects = self.dice.choices(["s.a", "s.b"], k=self.dice.randint(1, 9))
        first = self.world.stream.contents.last_seq + 1
        self.world.publish(*subjects)
        self.wanted |= {first + at for at, name in enumerate(subjects) if name == "s.a" or not self.filtered}

    def request(self) -> None:
        if self.push:
            return
        self.inboxes += 1
        inbox = f"in{self.inboxes}"
        if self.dice.random() < 0.2:
            self.world.outlet.take[inbox.encode()] = self.dice.randint(0, 2)
        body = {"batch": self.dice.randint(1, 12), "expires": self.dice.randint(1, 8) * S}
        if self.dice.random() < 0.3:
            body["max_bytes"] = self.dice.randint(50, 500)
        if self.dice.random() < 0.2:
            body["no_wait"] = True
        self.world.request(inbox, body)

    def lose_connection(self) -> None:
        outlet = self.world.outlet
        if self.push:
            outlet.leave(b"to")
            self.world.run()
            outlet.listen(b"to")
            outlet.take[b"to"] = self.dice.randint(0, 3)
            self.world.run()
            self.receive()
            outlet.take.pop(b"to", None)
        elif self.inboxes:
            outlet.leave(f"in{self.dice.randint(1, self.inboxes)}".encode())

    def acknowledge(self) -> None:
        seqs = self.dice.sample(sorted(self.held), k=min(len(self.held), self.dice.randint(1, 6)))
        for seq in seqs:
            self.receive()
            if seq not in self.held:
                continue
            _, got = self.held.pop(seq)
            body, reply = self.dice.choice([(b"", b""), (b"", b"r"), (b"+ACK", b""), (b"+TERM", b"r"), (b"-NAK", b"")])
            self.world.ack(got, body=body, reply=reply)
            if not reply:
                self.world.pass_s(0.02)
            # Until the acknowledgement is in the log the message may still come again.
            self.receive()
            if body != b"-NAK":
                self.held.pop(seq, None)
                self.acked.add(seq)

    def delete(self) -> None:
        last = self.world.stream.contents.last_seq
        if last:
            seq = self.dice.randint(1, last)
            self.deleted.add(seq)
            self.held.pop(seq, None)
            if self.world.stream.contents.is_live(seq):
                self.world.delete_message(seq)

    def pass_time(self) -> None:
        self.world.pass_s(self.dice.choice([0.01, 0.5, 2.0, 6.0]))

    def slow_log(self) -> None:
        self.world.hold = True
        self.dice.choice([self.request, self.lose_connection, self.pass_time])()
        self.world.hold = False
        self.world.run()

    def change_leader(self) -> None:
        self.world.delivery.stop(b"409 Leadership Change")
        self.world.run()
        self.receive()
        self.leads_since_s = self.world.loop.now_s
        self.world.delivery.start()
        self.world.run()

    def restart(self) -> None:
        """Replay the whole log into a new stream: it must stand where the first one stands."""
        stream = Stream(GroupUid(2), MemoryLog(), MemoryIndex(), self.world.limits)
        for index, data in enumerate(self.world.log, 1):
            stream.apply(RaftIndex(index), Term(1), data, None)
        ours = self.world.stream.consumers["c"].to_head()
        assert json.dumps(stream.consumers["c"].to_head()) == json.dumps(ours)

    def steps(self) -> Iterator[None]:
        choices = [self.publish, self.request, self.request, self.acknowledge, self.acknowledge, self.pass_time]
        choices += [self.delete, self.lose_connection, self.slow_log, self.change_leader]
        for _ in range(60):
            self.dice.choice(choices)()
            self.world.run()
            self.receive()
            yield
        self.restart()

    def settle(self) -> None:
        """With a client that acknowledges everything, every message is acknowledged in the end."""
        for _ in range(200):
            self.receive()
            held, self.held = self.held, {}
            for _, got in held.values():
                self.world.ack(got, reply=b"r")
            self.receive()
            self.acked |= held.keys()
            if self.wanted <= self.acked | self.deleted:
                break
            if not self.push:
                self.world.request("last", {"batch": 50, "expires": S})
            self.world.pass_s(1)
            self.receive()
        assert self.wanted <= self.acked | self.deleted
        info = self.world.delivery.consumer_info("c")
        assert (info.num_pending, info.num_ack_pending) == (0, 0)
        assert info.ack_floor.stream_seq == info.delivered.stream_seq


@pytest.mark.parametrize("seed", range(3000 if IS_DEEP else 40))
def test_random_history(seed: int) -> None:
    run = Run(seed)
    for _ in run.steps():
        pass
    run.settle()
