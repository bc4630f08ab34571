"""What runs beside the plain load of a round: atomic batches, scheduled messages, and a mirror of one of its streams.

Promises: a batch that was acknowledged is there as a whole, at consecutive sequences up to the one of its PubAck; any
other is there as a whole or not at all. A schedule that was acknowledged stores its message once, however often the
server dies, and is gone then. A mirror comes to hold what its origin holds, message by message.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from .control import ApiError, Control, ControlError
from .ledger import Findings, StreamLedger
from .published import Published
from .readers import Contents, drain
from .values import TAG_UNIT, pad, payload

SIZE = 128
BATCH_SIZES = (1, 2, 3, 20, 7)
AHEAD_S = 0.4
"""How far ahead schedules lie, at most; the servers often die before that."""
IN_TIME_S = 30.0
"""How long after a start schedules may take to store what was due, and a mirror to be whole."""
_POLL_S = 0.02


@dataclass
class FeatureLoad:
    """What one job published: the connection of the batches, the one of the schedules, and how batches were cut."""

    batches: Published
    schedules: Published
    counts: list[int] = field(default_factory=list)
    """Messages of each batch, in order."""


def feature_load(
    started: Callable[[], None], port: int, batch_stream: str, schedule_stream: str, tag: int
) -> FeatureLoad:
    """Batches and schedules, one after the other, until the connection is lost. Tags ``tag`` and ``tag`` + 1."""
    load = FeatureLoad(Published(tag, (f"{batch_stream}.x",), 0), Published(tag + 1, (f"{schedule_stream}.plan",), 0))
    try:
        with Control(port) as control:
            started()
            while True:
                _publish_batch(control, load, f"{tag}-{len(load.counts)}")
                _publish_schedule(control, load.schedules)
    except (ControlError, OSError):
        # The server was killed under the load; what is known until then counts.
        pass
    return load


def _publish_batch(control: Control, load: FeatureLoad, batch_id: str) -> None:
    result, count = load.batches, BATCH_SIZES[len(load.counts) % len(BATCH_SIZES)]
    numbers = range(result.sent, result.sent + count)
    load.counts.append(count)
    result.sent += count
    for place, number in enumerate(numbers, 1):
        headers = {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(place)}
        data = payload(result.tag * TAG_UNIT + number, SIZE)
        if place < count:
            control.publish(result.subjects[0], data, headers=headers)
            continue
        try:
            ack = control.publish_sync(result.subjects[0], data, headers | {"Nats-Batch-Commit": "1"})
        except ApiError as refusal:
            result.refusals.append(str(refusal).encode())
            return
        result.numbers.extend(numbers)
        result.sequences.extend(range(ack["seq"] - count + 1, ack["seq"] + 1))


def _publish_schedule(control: Control, result: Published) -> None:
    number = result.sent
    due = datetime.now(UTC) + timedelta(seconds=AHEAD_S * (number % 5) / 4)
    stream = result.subjects[0].split(".", 1)[0]
    headers = {
        "Nats-Schedule": f"@at {due.isoformat().replace('+00:00', 'Z')}",
        "Nats-Schedule-Target": f"{stream}.then",
    }
    result.sent += 1
    value = result.tag * TAG_UNIT + number
    try:
        ack = control.publish_sync(f"{result.subjects[0]}.{value}", payload(value, SIZE), headers)
    except ApiError as refusal:
        result.refusals.append(str(refusal).encode())
        return
    result.numbers.append(number)
    result.sequences.append(ack["seq"])


class Features:
    """The streams of a few rounds and what was promised of them."""

    def __init__(self, number: int, origin: StreamLedger) -> None:
        self.origin = origin
        self.mirror = f"M{number}"
        self.batches = StreamLedger(f"T{number}")
        self.schedules = StreamLedger(f"S{number}")
        self._cuts: list[range] = []
        """The values of each batch that was begun."""
        self._due: set[int] = set()
        """Values of acknowledged schedules."""

    @property
    def names(self) -> list[str]:
        """All streams, a mirror first."""
        return [self.mirror, self.batches.name, self.schedules.name]

    def create(self, control: Control) -> None:
        """The streams; the origin is there."""
        configs = (
            {"name": self.mirror, "mirror": {"name": self.origin.name}},
            {"name": self.batches.name, "subjects": [f"{self.batches.name}.x"], "allow_atomic": True},
            {"name": self.schedules.name, "subjects": [f"{self.schedules.name}.>"], "allow_msg_schedules": True},
        )
        for config in configs:
            control.api(f"STREAM.CREATE.{config['name']}", config)

    def published(self, load: FeatureLoad, findings: Findings) -> int:
        """Take what a job published; how many messages were acknowledged."""
        first = load.batches.tag * TAG_UNIT
        for count in load.counts:
            self._cuts.append(range(first, first + count))
            first += count
        acked = self.batches.published(load.batches, findings)
        base = load.schedules.tag * TAG_UNIT
        self.schedules.sent[load.schedules.tag] = load.schedules.sent
        self._due.update(base + number for number in load.schedules.numbers)
        for result in (load.batches, load.schedules):
            findings.add("publish refused", len(result.refusals), str(result.refusals[:1]))
        return acked + len(load.schedules.numbers)

    def check(self, control: Control, port: int, findings: Findings) -> int:
        """Read all three streams and hold them against the promises; how many messages were read."""
        batched = _read(control, self.batches.name, findings)
        self.batches.check(batched, findings)
        self._check_whole(set(batched.values), findings)
        came = self._read_scheduled(control, findings)
        mirrored = self._read_mirror(control, port, findings)
        return len(batched.values) + came + mirrored

    def _check_whole(self, values: set[int], findings: Findings) -> None:
        for batch in self._cuts:
            there = sum(value in values for value in batch)
            if there not in (0, len(batch)):
                text = f"{self.batches.name}: {there} of {len(batch)} from {batch[0]}"
                findings.add("batch stored in part", 1, text)

    def _read_scheduled(self, control: Control, findings: Findings) -> int:
        name = self.schedules.name
        left: dict[str, int] = {"?": 1}
        deadline = time.monotonic() + IN_TIME_S
        while left and time.monotonic() < deadline:
            left = state_of(control, name, findings, subjects_filter=f"{name}.plan.>").get("subjects") or {}
            if left:
                time.sleep(_POLL_S)
        findings.add("schedule did nothing in time", len(left), f"{name}: {sorted(left)[:3]}")
        contents = _read(control, name, findings)
        if not left:
            self.schedules.check(contents, findings)
            never = self._due - set(contents.values)
            self._due -= never
            findings.add("scheduled message lost", len(never), f"{name}: {sorted(never)[:5]}")
        return len(contents.values)

    def _read_mirror(self, control: Control, port: int, findings: Findings) -> int:
        last = state_of(control, self.origin.name, findings)["last_seq"]
        deadline = time.monotonic() + IN_TIME_S
        while (state := state_of(control, self.mirror, findings))["last_seq"] != last:
            if time.monotonic() > deadline:
                text = f"{self.mirror}: last_seq {state['last_seq']}, its origin's {last}"
                findings.add("mirror not whole in time", 1, text)
                break
            time.sleep(_POLL_S)
        contents = drain(port, self.mirror, state["messages"], size=SIZE)
        findings.add("damaged bytes served", len(contents.damaged), str(contents.damaged[:3]))
        read = dict(zip(contents.sequences, contents.values, strict=True))
        findings.add("one sequence read twice", len(contents.sequences) - len(read), self.mirror)
        wanted = {seq: value for seq, value in self.origin.seen.items() if seq <= state["last_seq"]}
        other = {seq for seq in read.keys() | wanted.keys() - self.origin.lost if read.get(seq) != wanted.get(seq)}
        findings.add("mirror differs from its origin", len(other), f"{self.mirror}: {sorted(other)[:5]}")
        return len(read)


def state_of(control: Control, stream: str, findings: Findings, **details: str) -> dict[str, Any]:
    """A stream's state as its INFO tells it; that of an empty one if the stream is gone, which is a finding."""
    try:
        state: dict[str, Any] = control.api(f"STREAM.INFO.{stream}", details or None)["state"]
    except ApiError as error:
        findings.add("stream lost", 1, f"{stream}: {error}")
        return {"messages": 0, "last_seq": 0}
    return state


def _read(control: Control, stream: str, findings: Findings) -> Contents:
    """All messages of a stream, also such with headers."""
    contents = Contents()
    count = state_of(control, stream, findings)["messages"]
    if not count:
        return contents
    inbox = f"_READ.{stream}.{time.monotonic_ns()}"
    sid = control.subscribe(inbox)
    config = {"deliver_subject": inbox, "ack_policy": "none", "deliver_policy": "all"}
    control.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
    messages = [control.next(sid) for _ in range(count)]
    contents.add([message.reply for message in messages], [message.payload for message in messages], pad(SIZE))
    return contents
