"""Groups over a disk that completes when the test says so: batching, ordering, outcomes, re-append, faults."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from jetstore.errors import Corruption, DiskFull, DiskPoisoned, NotNow, OutcomeUnknown
from jetstore.limits import Limits
from jetstore.node.group import Group
from jetstore.node.group_commit import GroupCommit
from jetstore.raft.log import Entry
from jetstore.raft.membership import ConfChange
from jetstore.raft.message import Message, MessageKind
from jetstore.store.journal.entries import iter_entries
from jetstore.store.ports import PLAIN, EntryRef, GroupRecovery, JournalStatus, Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term


class HeldDisk:
    """A disk whose blocks become durable one by one, when ``finish`` is called."""

    def __init__(self) -> None:
        self.blocks: list[list[Record]] = []
        self.futures: list[asyncio.Future[JournalStatus]] = []

    def append(self, records: Sequence[Record]) -> asyncio.Future[JournalStatus]:
        assert all(future.done() for future in self.futures), "one block at a time"
        self.blocks.append(list(records))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    def call(self, method: str, *args: Any) -> asyncio.Future[Any]:
        raise AssertionError(method)

    def close(self) -> asyncio.Future[None]:
        raise AssertionError("close")

    def finish(self, failure: BaseException | None = None) -> None:
        if failure is not None:
            self.futures[-1].set_exception(failure)
        else:
            self.futures[-1].set_result(JournalStatus(len(self.blocks), 0, 1 << 30, True, (), 3))


class Appender:
    """A state machine that remembers what it applied."""

    def __init__(self) -> None:
        self.applied_index = RaftIndex(0)
        self.raft_configuration = b""
        self.applied: list[bytes] = []

    def apply(self, index: RaftIndex, term: Term, data: bytes, cache: object = None) -> Any:
        if data == b"unreadable":
            raise Corruption("bad frame", file="x.seg", offset=0)
        self.applied_index = index
        if data:
            self.applied.append(data)
        return data.upper()


class Bench:
    def __init__(self, limits: Limits | None = None) -> None:
        self.disk = HeldDisk()
        self.failures: list[BaseException] = []
        self.limits = limits or Limits()
        self.loop = asyncio.get_running_loop()
        self.commit = GroupCommit(
            self.disk, self.limits, self.loop, on_status=lambda status: None, on_failure=self.failures.append
        )

    def group(self, uid: int = 7, recovery: GroupRecovery | None = None) -> Group:
        machine = Appender()
        return Group(
            uid=GroupUid(uid),
            name=f"g{uid}",
            machine=machine,
            recovery=recovery,
            commit=self.commit,
            limits=self.limits,
            loop=self.loop,
        )

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def finish(self) -> None:
        await self.settle()
        self.disk.finish()
        await self.settle()

    async def serve(self, *groups: Group) -> None:
        for group in groups:
            group.start()
        await self.finish()  # HARD
        await self.finish()  # the no-op
        assert all(group.serves for group in groups)


def entries_of(records: list[Record]) -> list[bytes]:
    return [bytes(data) for r in records if r.kind is Kind.ENTRIES for _, data in iter_entries(r.body) if data != b""]


@pytest.mark.asyncio
async def test_a_new_group_votes_and_serves_after_its_no_op() -> None:
    bench = Bench()
    group = bench.group()
    group.start()
    await bench.settle()
    assert [r.kind for r in bench.disk.blocks[0]] == [Kind.HARD]
    assert not group.core.is_leader
    await bench.finish()
    assert [r.kind for r in bench.disk.blocks[1]] == [Kind.ENTRIES]
    assert not group.serves
    await bench.finish()
    assert group.serves


@pytest.mark.asyncio
async def test_what_arrives_during_a_sync_shares_the_next_block_over_all_groups() -> None:
    bench = Bench()
    first, second = bench.group(7), bench.group(8)
    await bench.serve(first, second)
    before = len(bench.disk.blocks)
    one = first.propose(b"a")
    await bench.settle()
    others = [first.propose(b"b"), second.propose(b"c"), first.propose(b"d")]
    await bench.settle()
    assert len(bench.disk.blocks) == before + 1
    assert not one.done()
    await bench.finish()
    assert one.result() == b"A"
    assert len(bench.disk.blocks) == before + 2
    assert entries_of(bench.disk.blocks[-1]) == [b"b", b"d", b"c"]
    assert not any(future.done() for future in others), "nothing is answered before it is durable"
    await bench.finish()
    assert [future.result() for future in others] == [b"B", b"C", b"D"]


@pytest.mark.asyncio
async def test_a_failed_block_answers_nobody_and_is_reported_once() -> None:
    bench = Bench()
    group = bench.group()
    await bench.serve(group)
    answer = group.propose(b"a")
    await bench.settle()
    bench.disk.finish(DiskPoisoned("EIO"))
    await bench.settle()
    assert not answer.done()
    assert [str(failure) for failure in bench.failures] == ["EIO"]
    group.propose(b"b")
    await bench.settle()
    assert len(bench.disk.blocks) == 3, "nothing is written after a failure"


@pytest.mark.asyncio
async def test_recovered_entries_are_applied_only_after_the_own_no_op_is_durable() -> None:
    bench = Bench()
    recovery = GroupRecovery(
        GroupUid(7),
        term=Term(3),
        vote=1,
        entries=[EntryRef(RaftIndex(1), Term(3), 0, b""), EntryRef(RaftIndex(2), Term(3), 1, b"old")],
        last_index=RaftIndex(2),
        last_term=Term(3),
    )
    group = bench.group(7, recovery)
    group.start()
    await bench.finish()
    assert bench.disk.blocks[0][0].term == 4
    assert group.machine.applied == []  # type: ignore[attr-defined]
    await bench.finish()
    assert group.machine.applied == [b"old"]  # type: ignore[attr-defined]
    assert bench.disk.blocks[1][0].prev_term == 3


@pytest.mark.asyncio
async def test_a_configuration_has_a_line_of_its_own_and_the_others_say_that_they_are_none() -> None:
    bench = Bench()
    group = bench.group()
    await bench.serve(group)
    for data in (b"a", b"b"):
        group.propose(data)
    group.core.propose_conf_change(ConfChange.add_learner("other", 1))
    for data in (b"c", b"d"):
        group.propose(data)
    for _ in range(2):  # and the same when the log is said again
        await bench.finish()
        assert [(r.last_index, r.aux) for r in bench.disk.blocks[-1]] == [(3, PLAIN), (4, 0), (6, PLAIN)]
        assert group.reappend()
        await bench.settle()


@pytest.mark.asyncio
async def test_a_full_journal_takes_term_and_vote_all_the_same() -> None:
    """Refused with entries of the same input, then behind entries that wait."""
    bench = Bench()
    group = bench.group()
    await bench.serve(group)
    core = group.core

    async def written() -> list[tuple[Kind, int, int]]:
        await bench.settle()
        return [(r.kind, r.term, r.aux) for r in bench.disk.blocks[-1]]

    entry = Entry(Term(2), RaftIndex(2), b"a")
    core.step(Message(MessageKind.APPEND, 2, 1, Term(2), RaftIndex(1), Term(1), entries=(entry,), sequence=1))
    group.advance()
    assert await written() == [(Kind.HARD, 2, 0), (Kind.ENTRIES, 2, PLAIN)]
    bench.disk.finish(DiskFull("the journal is at its maximum"))
    assert await written() == [(Kind.HARD, 2, 0)]
    await bench.finish()
    core.take_messages()
    vote = Message(MessageKind.VOTE, 3, 1, Term(3), last_index=RaftIndex(9), last_term=Term(2), is_forced=True)
    core.step(vote)
    group.advance()
    assert await written() == [(Kind.ENTRIES, 2, PLAIN)], "a line was written: there may be room"
    bench.disk.finish(DiskFull("the journal is at its maximum"))
    assert await written() == [(Kind.HARD, 3, 3)]
    assert core.take_messages() == []
    await bench.finish()
    (message,) = core.take_messages()
    assert (message.kind, message.to, message.is_rejected) == (MessageKind.VOTE_RESPONSE, 3, False)
    assert core.log.durable_index == 1
    assert await written() == [(Kind.ENTRIES, 2, PLAIN)]
    await bench.finish()
    assert core.log.durable_index == 2
    assert not bench.failures


@pytest.mark.asyncio
async def test_whether_an_unreadable_entry_may_be_a_configuration_comes_from_its_line() -> None:
    for is_plain in (True, False):
        bench = Bench()
        entries = [EntryRef(RaftIndex(1), Term(1), 0, None, is_plain=is_plain)]
        group = bench.group(7, GroupRecovery(GroupUid(7), term=Term(1), entries=entries))
        group.start()
        await bench.settle()
        if bench.disk.futures:  # it stands
            await bench.finish()
        assert group.core.is_leader is is_plain, "a lone voter leads if it knows that it is one"


@pytest.mark.asyncio
async def test_reappend_writes_the_whole_log_above_the_checkpoint_again_with_new_entries_behind_it() -> None:
    bench = Bench()
    group = bench.group()
    await bench.serve(group)
    group.propose(b"a")
    await bench.finish()
    assert group.reappend()
    group.propose(b"b")
    await bench.settle()
    records = bench.disk.blocks[-1]
    assert [(r.first_index, r.last_index) for r in records] == [(1, 2), (3, 3)]
    assert entries_of(records) == [b"a", b"b"]


@pytest.mark.asyncio
async def test_apply_pauses_at_unreadable_input_and_refuses_from_then_on() -> None:
    bench = Bench()
    group = bench.group()
    await bench.serve(group)
    answers = [group.propose(b"a"), group.propose(b"unreadable"), group.propose(b"c")]
    await bench.finish()
    assert answers[0].result() == b"A"
    assert isinstance(answers[1].exception(), OutcomeUnknown)
    assert isinstance(answers[2].exception(), OutcomeUnknown)
    assert group.is_faulty
    with pytest.raises(NotNow):
        group.propose(b"d")


@pytest.mark.asyncio
async def test_a_block_is_cut_at_its_bound_and_the_rest_follows() -> None:
    bench = Bench(Limits(block_bytes_max=8192, entry_bytes_max=4096))
    group = bench.group()
    await bench.serve(group)
    answers = [group.propose(bytes([65 + n]) * 3000) for n in range(6)]
    before = len(bench.disk.blocks)
    for _ in range(4):
        await bench.settle()
        if bench.disk.futures[-1].done():
            break
        await bench.finish()
    assert all(answer.done() for answer in answers)
    sizes = [sum(len(r.body) for r in block) for block in bench.disk.blocks[before:]]
    assert len(sizes) >= 2
    assert max(sizes) <= 8192 + 3000
