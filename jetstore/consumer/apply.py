"""One entry of one consumer, applied: from the bytes in the log to the outcome its proposer gets."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import NamedTuple, TypeAlias

from jetstore.consumer import counts, entries
from jetstore.consumer.entries import ConsumerEntryKind, SeqRange
from jetstore.consumer.ports import MakeFilter, StreamView
from jetstore.consumer.state import ConsumerState, filters_of
from jetstore.model.consumer import ConsumerConfig

Result: TypeAlias = (
    counts.DeliveredOutcome
    | counts.AckOutcome
    | counts.ExhaustedOutcome
    | counts.SetOutcome
    | counts.DeleteOutcome
    | counts.ResetOutcome
    | counts.PauseOutcome
    | None
)
"""None: nothing to tell (RETURNED), or there is no such consumer."""


class Applied(NamedTuple):
    """What an entry did."""

    name: str
    result: Result
    settled: list[SeqRange]
    """Sequences the consumer needs no more; interest and work-queue streams look at them."""
    gone: bool = False
    """The consumer was deleted; interest streams look at everything it needed."""
    time_ns: int = 0
    """The leader's time in the entry; 0: it carries none that others go by."""


def apply_entry(
    consumers: MutableMapping[str, ConsumerState], data: bytes, make_filter: MakeFilter, view: StreamView
) -> Applied:
    """Apply one consumer entry to the stream's consumers. Raises ``FormatUnknown`` for what it does not know."""
    kind = ConsumerEntryKind(data[0])
    if kind in _RARE:
        return _apply_rare(consumers, data, make_filter, view)
    body = memoryview(data)
    head, at = entries.decode_head(body)
    name, time_ns = head.name, head.time_ns
    state = consumers.get(name)
    if state is None:
        return Applied(name, None, [], time_ns=time_ns)
    if kind is ConsumerEntryKind.DELIVERED:
        runs = entries.decode_delivered(body, at)
        return Applied(name, state.apply_delivered(runs, head.generation, time_ns), [], time_ns=time_ns)
    if kind is ConsumerEntryKind.DELIVERED_NEW:
        from_seq, runs = entries.decode_delivered_new(body, at)
        return Applied(name, state.apply_delivered(runs, head.generation, time_ns, from_seq), [], time_ns=time_ns)
    if kind is ConsumerEntryKind.ACKS:
        acked = state.apply_acks(entries.decode_acks(body, at), time_ns)
        return Applied(name, acked, acked.settled, time_ns=time_ns)
    if kind is ConsumerEntryKind.RETURNED:
        state.apply_returned(entries.decode_ranges(body, at), head.generation, time_ns)
        return Applied(name, None, [], time_ns=time_ns)
    if kind is ConsumerEntryKind.EXHAUSTED:
        gone = state.apply_exhausted(entries.decode_ranges(body, at), head.generation, time_ns)
        return Applied(name, gone, [], time_ns=time_ns)
    consumer_seq, stream_seq = entries.decode_cursor(body, at)
    passed = state.apply_cursor(consumer_seq, stream_seq, head.generation, time_ns)
    return Applied(name, passed, passed.settled, time_ns=time_ns)


_RARE = frozenset({ConsumerEntryKind.SET, ConsumerEntryKind.DELETE, ConsumerEntryKind.RESET, ConsumerEntryKind.PAUSE})


def _apply_rare(
    consumers: MutableMapping[str, ConsumerState], data: bytes, make_filter: MakeFilter, view: StreamView
) -> Applied:
    kind, fields = entries.decode_json(data)
    name, time_ns = fields["name"], fields["time_ns"]
    state = consumers.get(name)
    if kind is ConsumerEntryKind.SET:
        config = ConsumerConfig.from_json(fields["config"])
        subject_filter = make_filter(filters_of(config))
        if state is None:
            consumers[name] = ConsumerState(name, config, time_ns, subject_filter, view)
        else:
            state.update(config, subject_filter, time_ns)
        return Applied(name, counts.SetOutcome(state is None), [])
    if kind is ConsumerEntryKind.DELETE:
        if state is None or fields["generation"] not in (0, state.generation):
            return Applied(name, counts.DeleteOutcome(False), [])
        del consumers[name]
        return Applied(name, counts.DeleteOutcome(True), [], gone=True)
    if kind is ConsumerEntryKind.RESET:
        return Applied(name, counts.ResetOutcome(state.reset(fields["seq"], time_ns) if state else 0), [])
    if state is not None:
        state.pause(fields["pause_until_ns"])
    return Applied(name, counts.PauseOutcome(fields["pause_until_ns"], state is not None), [])
