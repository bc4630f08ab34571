"""Ways to break a stream, a consumer or a node, each with the promise it breaks and how it is hunted.

``python tests/sim/stream_defects.py`` hunts all of them and prints the table of ``docs/testing.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from jepsen.sim.owner import OWNER
from jepsen.sim.report import quiet
from jepsen.sim.run import run_seed
from jetstore.consumer.counts import AckOutcome
from jetstore.consumer.state import ConsumerState
from jetstore.errors import ApiError
from jetstore.hot.frame import encode_frames, frame_columns
from jetstore.meta.state import MetaState
from jetstore.node.assignments import Assignments
from jetstore.node.fast_batches import FastBatches
from jetstore.node.group_commit import Block
from jetstore.node.ingest import Ingest
from jetstore.node.ports import Inbound
from jetstore.node.sourcing import _Copier
from jetstore.store.ports import Columns, Frame, Message, MessageMeta, Record
from jetstore.stream import counters, schedules
from jetstore.stream.apply_batch import apply_batch
from jetstore.stream.apply_fast import _Batched
from jetstore.stream.apply_publish import Careful
from jetstore.stream.contents import Contents
from jetstore.stream.ended_batches import EndedBatches
from jetstore.stream.outcomes import BatchOutcome
from jetstore.stream.stream import Stream

Patch = pytest.MonkeyPatch
BUDGET = 40


@dataclass(frozen=True, slots=True)
class Defect:
    """One of them."""

    name: str
    breaks: str
    """The invariant of the durability contract, or its row of the fault matrix."""
    apply: Callable[[Patch], None]
    workloads: tuple[str, ...]
    found_by: frozenset[str]
    """Checkers that name it rightly."""
    faults: frozenset[str] = frozenset()
    nodes: int = 3
    seed: int = 0
    """The first one that finds it: where the test begins (the table is made from 0 on)."""


def take_for_durable(patch: Patch) -> None:
    """A group takes its records for durable when it hands them to the disk."""
    honest = Block.add

    def add(block: Block, group: Any, records: list[Record], on_durable: Callable[[Any], None], token: Any) -> None:
        honest(block, group, records, lambda token: None, token)
        group.loop.call_soon(on_durable, token)
        group.loop.call_soon(group.apply_committed)

    patch.setattr(Block, "add", add)


def _neighbour(patch: Patch) -> None:
    honest = Contents.read

    def read(contents: Contents, seq: int) -> Message | None:
        other = honest(contents, seq - 1) if seq % 20 == 0 else None
        return honest(contents, seq) if other is None else other._replace(seq=seq)

    patch.setattr(Contents, "read", read)


def _leave_out(patch: Patch) -> None:
    honest = Contents.append

    def append(contents: Contents, first_seq: int, frame: Frame, *rest: Any) -> Any:
        overfull = honest(contents, first_seq, frame, *rest)
        for seq in range(first_seq, first_seq + frame.count):
            if seq % 29 == 0:
                contents.remove(seq)
        return overfull

    patch.setattr(Contents, "append", append)


def _back_to_front(patch: Patch) -> None:
    honest = Ingest._propose

    def propose(ingest: Ingest, count: int) -> int:
        queues: tuple[Any, ...] = (ingest._subjects, ingest._replies, ingest._payloads, ingest._header_lens)
        for waiting in queues:
            waiting[:count] = waiting[:count][::-1]
        return honest(ingest, count)

    patch.setattr(Ingest, "_propose", propose)


def _forget_ids(patch: Patch) -> None:
    patch.setattr("jetstore.stream.dedupe.Dedupe.add", lambda *args: None)


def _answer_in_flight(patch: Patch) -> None:
    honest = Ingest.on_messages

    def on_messages(ingest: Ingest, batch: Inbound) -> None:
        seen = vars(ingest._group).setdefault("seen_ids", {})
        for reply, payload in zip(batch.replies, batch.payloads, strict=True):
            _, found, rest = payload.partition(b"Nats-Msg-Id: ")
            msg_id = rest.partition(b"\r\n")[0]
            if found and msg_id in seen:
                ingest._refuse((reply,), b'{"stream":"D","seq":%d,"duplicate": true}' % seen[msg_id])
            elif found:
                seen[msg_id] = ingest._group.stream.contents.last_seq + 1
        honest(ingest, batch)

    patch.setattr(Ingest, "on_messages", on_messages)


def _ignore_deletes(patch: Patch) -> None:
    honest = Contents.remove

    def remove(contents: Contents, seq: int) -> MessageMeta | None:
        owner = OWNER.get()
        is_deaf = owner is not None and owner.host == "n2"
        return contents.meta(seq) if is_deaf else honest(contents, seq)

    patch.setattr(Contents, "remove", remove)


def _count_anew(patch: Patch) -> None:
    honest = Contents.remove_all

    def remove_all(contents: Contents) -> int:
        removed = honest(contents)
        log: Any = contents.log
        log.first_seq, log.last_seq = 1, 0
        return removed

    patch.setattr(Contents, "remove_all", remove_all)


def _no_limits(patch: Patch) -> None:
    patch.setattr("jetstore.stream.retention.enforce_limits", lambda stream, overfull: 0)


def _lazy_limits(patch: Patch) -> None:
    honest = Stream._apply_config

    def apply_config(stream: Stream, entry: Any) -> Any:
        with pytest.MonkeyPatch.context() as within:
            _no_limits(within)
            return honest(stream, entry)

    patch.setattr(Stream, "_apply_config", apply_config)


def _no_age(patch: Patch) -> None:
    patch.setattr(Contents, "seq_at_time", lambda contents, time_ns: contents.first_seq)


def _count_apart(patch: Patch) -> None:
    honest = counters.next_value

    def next_value(contents: Contents, staged: dict[bytes, int], *rest: Any) -> Any:
        own: dict[bytes, int] = {}
        value = honest(contents, own, *rest)
        staged.update(own)
        return value

    patch.setattr(counters, "next_value", next_value)


def _fire_twice(patch: Patch) -> None:
    honest = schedules._store

    def store(stream: Stream, *rest: Any) -> None:
        honest(stream, *rest)
        honest(stream, *rest)

    patch.setattr(schedules, "_store", store)


def _delete_some(patch: Patch) -> None:
    honest = MetaState.apply

    def apply(state: MetaState, index: Any, term: Any, data: bytes, *rest: Any) -> Any:
        kept = dict(state.streams)
        outcome = honest(state, index, term, data, *rest)
        if b'"op":"delete"' in data and index % 2:
            state.streams = kept
        return outcome

    patch.setattr(MetaState, "apply", apply)


def _copy_some(patch: Patch) -> None:
    honest = _Copier._propose

    def propose(copier: _Copier, origin: Any, messages: Sequence[Message]) -> None:
        honest(copier, origin, [message for message in messages if message.seq % 11] or messages)

    patch.setattr(_Copier, "_propose", propose)


def _keep_files(patch: Patch) -> None:
    patch.setattr(Assignments, "_remove_files", lambda *args: None)


def _take_apart(patch: Patch) -> None:
    def torn(stream: Stream, frames: Sequence[Frame]) -> BatchOutcome | ApiError:
        columns = frame_columns(frames[-1])
        kept = Columns(columns.subjects[:-1], columns.header_lens[:-1], columns.payloads[:-1])
        rest = encode_frames(kept, frames[-1].base_time_ns, 1 << 20) if kept.subjects else []
        return apply_batch(stream, [*frames[:-1], *rest] or frames)

    patch.setattr("jetstore.stream.stream.apply_batch", torn)


def _deletes_come_back(patch: Patch) -> None:
    honest = Contents.remove

    def remove(contents: Contents, seq: int) -> MessageMeta | None:
        return honest(contents, seq) if seq % 3 else contents.meta(seq)

    patch.setattr(Contents, "remove", remove)


def _forget_acks(patch: Patch) -> None:
    honest = ConsumerState.apply_acks

    def apply_acks(state: ConsumerState, ops: Any, now_ns: int) -> AckOutcome:
        return honest(state, [] if now_ns // 1000 % 3 == 0 else ops, now_ns)

    patch.setattr(ConsumerState, "apply_acks", apply_acks)


def _floor_falls(patch: Patch) -> None:
    honest = ConsumerState.counters

    def counters(state: ConsumerState) -> Any:
        found = honest(state)
        floor = found.ack_floor
        return found._replace(ack_floor=floor._replace(stream_seq=floor.stream_seq // 2 * (floor.stream_seq % 5 == 0)))

    patch.setattr(ConsumerState, "counters", counters)


def _skip_deliveries(patch: Patch) -> None:
    honest = ConsumerState.plan_new

    def plan_new(state: ConsumerState, *args: Any) -> list[int]:
        return [seq for seq in honest(state, *args) if seq % 11]

    patch.setattr(ConsumerState, "plan_new", plan_new)


def _go_on(patch: Patch) -> None:
    patch.setattr(EndedBatches, "begin", lambda ended, term, gone: ended.keys.clear())
    patch.setattr(_Batched, "take", Careful.take)


def _flow_ack_early(patch: Patch) -> None:
    honest = FastBatches.take

    def take(batches: FastBatches, given: Inbound, at: int, *, is_plain: bool) -> Any:
        end, run = honest(batches, given, at, is_plain=is_plain)
        if run is not None:
            run.batch.acked = run.batch.taken
            batches._ack(run.batch, run.replies[-1])
        return end, run

    patch.setattr(FastBatches, "take", take)


DEFECTS = (
    Defect(
        "a publish is acknowledged when it is handed to the disk",
        "S1",
        take_for_durable,
        ("A",),
        frozenset(["lost", "gap"]),
        frozenset(["kill", "slow"]),
        nodes=1,
        seed=34,
    ),
    Defect("a read shows the message before", "S2", _neighbour, ("A",), frozenset(["dup-seq", "drain"])),
    Defect("apply leaves out a message", "S3", _leave_out, ("A",), frozenset(["lost", "gap"])),
    Defect("what waits is proposed back to front", "S4", _back_to_front, ("A",), frozenset(["order"])),
    Defect("message ids are forgotten", "S5", _forget_ids, ("D",), frozenset(["dup-msg"])),
    Defect(
        "a duplicate is answered while the original is in flight",
        "S5, §16",
        _answer_in_flight,
        ("D",),
        frozenset(["dup-msg", "lost"]),
    ),
    Defect(
        "one machine ignores deletes", "S6", _ignore_deletes, ("I",), frozenset(["lost-on-node", "removed", "contents"])
    ),
    Defect("after a purge sequences begin anew", "S7", _count_anew, ("I",), frozenset(["dup-seq", "gap", "order"])),
    Defect("limits are not enforced", "S8", _no_limits, ("K",), frozenset(["limit"])),
    Defect("messages do not get too old", "S8", _no_age, ("K",), frozenset(["limit"])),
    Defect("a lowered limit waits for the next message", "S8", _lazy_limits, ("K",), frozenset(["limit"])),
    Defect("the last message of a batch is not stored", "S9", _take_apart, ("E",), frozenset(["batch"])),
    Defect("a fast batch goes on behind a refused message", "S9", _go_on, ("L",), frozenset(["fast"])),
    Defect(
        "a flow ack names messages on their way to the disk",
        "S1",
        _flow_ack_early,
        ("L",),
        frozenset(["fast"]),
        frozenset(["kill", "power", "slow"]),
        nodes=1,
    ),
    Defect("some deletes are confirmed and not done", "S10", _deletes_come_back, ("I",), frozenset(["removed"])),
    Defect(
        "acknowledgements of deliveries get lost",
        "C3",
        _forget_acks,
        ("G",),
        frozenset(["redelivered", "floor", "live", "drained", "wq"]),
    ),
    Defect("the ack floor that is shown goes back", "C1", _floor_falls, ("G",), frozenset(["floor"])),
    Defect("messages are not copied", "M1, M2", _copy_some, ("F",), frozenset(["mirror"]), nodes=1),
    Defect("increments that come together count apart", "J", _count_apart, ("J",), frozenset(["counter"])),
    Defect("a schedule stores its message twice", "J", _fire_twice, ("T",), frozenset(["timed"])),
    Defect("some streams are deleted with success, and stay", "A1", _delete_some, ("H",), frozenset(["admin"])),
    Defect(
        "files of deleted streams stay",
        "A1",
        _keep_files,
        ("D",),
        frozenset(["ghost"]),
        frozenset(["storm"]),
    ),
    Defect("a message is never delivered", "C2", _skip_deliveries, ("G",), frozenset(["live", "drained"])),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a hunt."""

    seeds: int
    """Until it was found; 0 = not within the budget."""
    checker: str
    others: tuple[str, ...] = ()


def hunt(defect: Defect, patch: Patch, first: int = 0, budget: int = BUDGET) -> Found:
    """Run small seeds with this defect until one of its checkers objects, ``budget`` at most."""
    quiet()
    defect.apply(patch)
    others: list[str] = []
    for seed in range(first, first + budget):
        report = run_seed(
            seed, nodes=defect.nodes, workloads=defect.workloads, faults=defect.faults, is_small=True, damaged=False
        )
        named = [problem.split(":")[0] for problem in report.problems]
        rightly = [name for name in named if name in defect.found_by]
        if rightly:
            return Found(seed + 1, rightly[0])
        others += [problem[:150] for problem in report.problems[:1]]
    return Found(0, "", tuple(others))


def main(names: Sequence[str]) -> None:
    """Print the table of all, or of those that break one of these."""
    print("| invariant | defect | seeds until found | checker |\n|---|---|---|---|")
    for defect in DEFECTS:
        if names and defect.breaks not in names:
            continue
        with pytest.MonkeyPatch.context() as patch:
            found = hunt(defect, patch, budget=defect.seed + BUDGET)
        told = found.checker or f"not found, but {found.others[:2]}"
        print(f"| {defect.breaks} | {defect.name} | {found.seeds or '–'} | {told} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
