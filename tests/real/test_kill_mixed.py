"""kill -9 under removals, message ids and a work queue, one operation at a time: each answer is a promise that is kept.

One client publishes with message ids (and repeats what got no answer after the restart), deletes messages, and takes
and acknowledges work; after each restart everything that was answered is looked up.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from deep import IS_DEEP

from jepsen.real.control import ApiError, Control, ControlError
from jepsen.real.process import JETSTORE, ServerProcess

ROUNDS = 50 if IS_DEEP else 4
SUBJECTS = 7
PER_SUBJECT = 3
PULL = json.dumps({"batch": 1, "expires": 500_000_000}).encode()


@dataclass
class Promises:
    """What was answered so far."""

    number: int = 0
    unanswered: int = 0
    """The publish whose answer is owed; 0 = none."""
    stored: dict[int, int] = field(default_factory=dict)
    """Sequence → number of the message."""
    deleted: set[int] = field(default_factory=set)
    worked: set[int] = field(default_factory=set)
    """Sequences of work whose acknowledgement was confirmed."""


def work(control: Control, promises: Promises, chance: random.Random) -> None:
    """Operations until the server is gone."""
    deliveries = control.subscribe("pulled")
    while True:
        if not promises.unanswered:
            promises.number += 1
            promises.unanswered = promises.number
        number = promises.unanswered
        ack = control.publish_sync(f"D.{number % SUBJECTS}", b"%d" % number, {"Nats-Msg-Id": str(number)})
        assert promises.stored.setdefault(ack["seq"], number) == number
        promises.unanswered = 0
        if chance.random() < 0.2:
            sequence = chance.choice(sorted(promises.stored))
            try:
                control.api("STREAM.MSG.DELETE.D", {"seq": sequence})
            except ApiError:
                assert sequence in promises.deleted or control.get("D", sequence) is None
            promises.deleted.add(sequence)
        control.publish_sync("W.x", b"%d" % number)
        control.publish("$JS.API.CONSUMER.MSG.NEXT.W.worker", PULL, b"pulled")
        message = control.next(deliveries)
        if message.status == 0:
            sequence = int(message.reply.rsplit(b".", 4)[1])
            assert sequence not in promises.worked
            control.request(message.reply.decode(), b"+ACK")
            promises.worked.add(sequence)


def look(control: Control, promises: Promises) -> None:
    """Hold what is there against the promises."""
    newest: dict[int, int] = {}
    for sequence in sorted(promises.stored):
        number = promises.stored[sequence]
        found = control.get("D", sequence)
        assert found in (None, b"%d" % number)
        assert found is None or sequence not in promises.deleted
        newest[number % SUBJECTS] = sequence
    for subject, sequence in newest.items():
        # An unanswered publish to the same subject may have taken its place only if the limit were 1.
        assert sequence in promises.deleted or control.get("D", sequence) is not None, subject
    for sequence in promises.worked:
        assert control.get("W", sequence) is None
    counts = control.api("STREAM.INFO.D", {"subjects_filter": ">"})["state"].get("subjects", {})
    assert all(count <= PER_SUBJECT for count in counts.values())


@pytest.mark.real
@pytest.mark.timeout(60 * ROUNDS)
def test_every_answer_is_kept(tmp_path: Path, require_server: Callable[[str], None]) -> None:
    require_server(JETSTORE)
    chance = random.Random(3)
    promises = Promises()
    with ServerProcess(JETSTORE, tmp_path / "store") as server:
        server.start()
        with Control(server.port) as control:
            limits = {"max_msgs_per_subject": PER_SUBJECT}
            control.api("STREAM.CREATE.D", {"name": "D", "subjects": ["D.>"], **limits})
            control.api("STREAM.CREATE.W", {"name": "W", "subjects": ["W.>"], "retention": "workqueue"})
            config = {"durable_name": "worker", "ack_policy": "explicit", "ack_wait": 1_000_000_000}
            control.api("CONSUMER.DURABLE.CREATE.W.worker", {"stream_name": "W", "config": config})
        for _ in range(ROUNDS):
            with Control(server.port) as control:
                timer = threading.Timer(chance.uniform(0.3, 1.0), server.kill)
                timer.start()
                with pytest.raises((ControlError, OSError)):
                    work(control, promises, chance)
                timer.join()
            server.start()
            with Control(server.port) as control:
                look(control, promises)
    assert promises.stored
    assert promises.worked
