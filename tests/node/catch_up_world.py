"""Stores of replicas in memory, fed the same entries, with a pipe between them; opened, crashed and opened again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Any

from jepsen.sim.faults import SimCrash
from jepsen.sim.vfs import SimVfs
from jetstore.consumer.entries import encode_delivered, encode_set
from jetstore.hot.frame import encode_frames
from jetstore.limits import KIB, MIB, Limits
from jetstore.meta.state import MetaState
from jetstore.model.consumer import ConsumerConfig
from jetstore.model.requests import PurgeRequest
from jetstore.model.stream import StreamConfig
from jetstore.node.assignments import founding_record, reset_record
from jetstore.node.catch_up.exports import Export, MetaExport, StreamExport
from jetstore.node.catch_up.messages import CHUNK_BYTES, RANGE, decode
from jetstore.node.catch_up.sink import CatchUpSink
from jetstore.node.catch_up.source import CatchUpSource
from jetstore.node.compactor import Compactor
from jetstore.node.group_commit import GroupCommit
from jetstore.node.meta_group import MetaGroup
from jetstore.node.opening import GroupFiles
from jetstore.node.storage import Storage
from jetstore.node.stream_group import StreamGroup
from jetstore.store.disk import InlineDisk
from jetstore.store.journal.recovery import open_journal
from jetstore.store.memory_index import FileIndexes, FileIndexWriter
from jetstore.store.ports import Columns, GroupRecovery, Message
from jetstore.store.writer import Writer
from jetstore.stream import entries
from jetstore.types import META_GROUP, GroupUid, RaftIndex, Term

JOURNAL_ID = b"catch-up-replica"
UID = GroupUid(7)
SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND


def limits(segment_bytes: int = 4 * KIB, frame_bytes: int = 512) -> Limits:
    """Bounds under which a few hundred messages fill files."""
    return Limits(
        entry_bytes_max=8 * KIB,
        max_payload_bytes=4 * KIB,
        block_bytes_max=16 * KIB,
        journal_file_bytes=64 * KIB,
        journal_spare_files=1,
        journal_bytes_max=4 * MIB,
        journal_group_bytes=256 * KIB,
        journal_reappend_bytes=2 * KIB,
        zeroing_bytes=64 * KIB,
        segment_bytes=segment_bytes,
        segment_flush_bytes=KIB,
        segment_sync_bytes=2 * KIB,
        frame_bytes_max=frame_bytes,
        disk_reserve_bytes=MIB,
        disk_resume_bytes=MIB + 256 * KIB,
    )


class Stopped:
    """A clock that stands still: nothing becomes due by itself."""

    def wall_ns(self) -> int:
        return START_NS

    def monotonic_ns(self) -> int:
        return 0


class Quiet:
    """An outlet with nobody behind it."""

    domain = ""

    def subscribe(self, subject: bytes, handler: Any) -> Quiet:
        return self

    watch_interest = subscribe

    def close(self) -> None: ...

    def publish(self, *columns: Any) -> None: ...

    def pub_acks(self, *columns: Any) -> None: ...

    def deliver(self, *columns: Any, **more: Any) -> int:
        return 0

    def has_interest(self, target: bytes, queue: bytes = b"") -> bool:
        return False

    def pending_bytes(self, target: bytes) -> int:
        return 0

    def when_writable(self, target: bytes, callback: Any) -> None: ...


class Replica:
    """One member's store and group. Lone voters that are fed the same entries in the same order have the same log."""

    uid = UID

    def __init__(self, vfs: SimVfs | None = None, bounds: Limits | None = None) -> None:
        self.vfs = vfs or SimVfs()
        self.limits = bounds or limits()
        self.died: asyncio.Future[None]
        self.failures: list[BaseException] = []

    async def open(self) -> Replica:
        """Open (again) what is on the disk; returns when everything committed is applied."""
        loop = asyncio.get_running_loop()
        self.died = loop.create_future()
        loop.set_exception_handler(self._failed)
        journal, recovery = open_journal(self.vfs, self.limits, JOURNAL_ID)
        self.writer = Writer(self.vfs, journal, self.limits, FileIndexWriter(self.vfs).commands())
        self.disk = InlineDisk(loop, self.writer)
        self.commit = GroupCommit(
            self.disk, self.limits, loop, on_status=lambda status: None, on_failure=self.failures.append
        )
        self.storage = Storage(self.disk, self.limits, loop)
        self.files = GroupFiles(self.vfs, FileIndexes(self.vfs), self.limits)
        recovered = recovery.groups.get(self.uid)
        head = None
        is_newer = False
        if recovered is not None:
            before = recovered.checkpoint_hash
            head, recovered = self.files.head_of(recovered)
            is_newer = recovered.checkpoint_hash != before
        self.group = group = self.make_group(loop, head, recovered)
        if recovered is None:
            group.add_record(founding_record(self.uid, group.core.member))
        if is_newer:
            assert recovered is not None
            group.add_record(reset_record(recovered))
        self.storage.add(group)
        self.sink = CatchUpSink(disk=self.disk, vfs=self.vfs, limits=self.limits, storage=self.storage)
        export = self.export()
        self.source = CatchUpSource(lambda uid: export if uid == self.uid and not self.group.stopped else None, loop)
        group.start()
        await self.wait(group.serving())
        return self

    def make_group(self, loop: asyncio.AbstractEventLoop, head: bytes | None, recovered: GroupRecovery | None) -> Any:
        """The group as ``Node`` makes it."""
        return StreamGroup(
            uid=self.uid,
            name="S",
            stream=self.files.open_stream(self.uid, "file", head),
            recovery=recovered,
            commit=self.commit,
            limits=self.limits,
            loop=loop,
            clock=Stopped(),
            outlet=Quiet(),
            rng=Random(1),
            admission=lambda: None,
            on_applied=lambda applied: self.storage.note_applied(self.group),
            on_pause=lambda paused: None,
        )

    def export(self) -> Export:
        return StreamExport(self.uid, lambda: self.group.stream)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, SimCrash) and not self.died.done():
            self.died.set_result(None)
        elif error is not None:
            self.failures.append(error)

    async def wait(self, work: Any) -> Any:
        """The result, or ``SimCrash`` if the machine dies first."""
        task = asyncio.ensure_future(work)
        await asyncio.wait((task, self.died), return_when=asyncio.FIRST_COMPLETED)
        if self.died.done():
            task.cancel()
            raise SimCrash("the machine died")
        return task.result()

    def abandon(self) -> None:
        """The machine is gone."""
        self.commit.stop()
        self.disk.abandon()
        self.group.stop()
        with contextlib.suppress(SimCrash):
            self.files.close()

    async def checkpoint(self) -> None:
        await self.wait(self.storage.checkpoint(self.group))

    async def compact(self) -> None:
        compactor = Compactor(self.disk, self.storage, lambda: [self.group])
        await self.wait(compactor.compact(self.group))

    async def feed(self, data: Sequence[bytes]) -> None:
        """Propose these entries and wait until they are applied."""
        waiting = [self.group.propose(item) for item in data]
        if waiting:
            await self.wait(asyncio.gather(*waiting))

    def records(self) -> list[Message]:
        """Every live message."""
        log = self.group.messages
        return log.read_many(log.next_seqs(1, None, 1 << 30), 1 << 40)

    def restored(self, index: RaftIndex, term: Term, configuration: bytes) -> None:
        self.group.core.restored(index, term, self.group.core.configuration)

    async def catch_up(self, peer: Any, **options: Any) -> int:
        index: int = await self.wait(self.sink.catch_up(self.group, peer, self.restored, **options))
        return index


class MetaReplica(Replica):
    """The same for the metadata."""

    uid = META_GROUP

    def make_group(self, loop: asyncio.AbstractEventLoop, head: bytes | None, recovered: GroupRecovery | None) -> Any:
        meta = MetaGroup(
            uid=META_GROUP,
            name="_meta_",
            machine=MetaState() if head is None else MetaState.restore(head),
            recovery=recovered,
            commit=self.commit,
            limits=self.limits,
            loop=loop,
        )
        meta.on_checkpoint = lambda: None
        meta.found = lambda uid, members: [founding_record(uid, 1)]
        meta.founded_since = lambda machine, index: [
            founding_record(a.uid, 1)
            for a in sorted(machine.streams.values(), key=lambda a: a.uid)
            if a.created_index > index
        ]
        meta.written_last = (meta.core.log.last_term, meta.core.log.last_index)
        meta.opened_last = meta.core.log.last_index
        meta.on_current = lambda: None
        return meta

    def export(self) -> Export:
        return MetaExport(lambda: self.group.machine)

    async def catch_up(self, peer: Any, **options: Any) -> int:
        index: int = await self.wait(self.sink.catch_up_meta(self.group, peer, self.restored, **options))
        return index


class Pipe:
    """Bytes between a source and a sink, with whatever happens on the way."""

    def __init__(self, source: CatchUpSource) -> None:
        self.source = source
        self.requests: list[str] = []
        self.ranges: list[tuple[int, int]] = []
        self.stream_bytes = 0
        self.before: Callable[[str], Any] | None = None
        """Awaited before each request and each chunk of a stream, with the method."""
        self.change: Callable[[str, bytes], bytes] = lambda method, data: data

    async def request(self, method: str, payload: bytes) -> bytes:
        self.requests.append(method)
        if self.before is not None:
            await self.before(method)
        return self.change(method, await self.source.request(method, payload))

    async def stream(self, method: str, payload: bytes) -> AsyncIterator[bytes]:
        if method == RANGE:
            fields = decode(payload)
            self.ranges.append((fields["first_seq"], fields["last_seq"]))
        async for chunk in self.source.stream(method, payload):
            assert len(chunk) <= CHUNK_BYTES
            for start in range(0, len(chunk), 700):  # small pieces, so that a break leaves something
                if self.before is not None:
                    await self.before(method)
                piece = self.change(method, chunk[start : start + 700])
                self.stream_bytes += len(piece)
                yield piece


class Feed:
    """Makes entries that a stream's leader could have proposed."""

    def __init__(self, dice: Random | None = None, **config: Any) -> None:
        self.dice = dice or Random(1)
        self.version = 0
        self.now_ns = START_NS
        fields = {"name": "S", "subjects": (">",), "duplicate_window": 120 * SECOND, "allow_msg_ttl": True}
        self.config = StreamConfig(**(fields | config))
        self.ids = 0
        self.serial = 0

    def configure(self, **changes: Any) -> bytes:
        self.version += 1
        self.config = self.config.model_copy(update=changes)
        return entries.encode_config(self.version, START_NS, self.config)

    def publish(self, count: int, size: int = 60, subjects: int = 5, *, headers: bool = True) -> bytes:
        self.now_ns += SECOND
        blocks = []
        for _ in range(count):
            self.ids += 1
            lines = f"Nats-Msg-Id: {self.ids}\r\n" if self.dice.random() < 0.5 else ""
            lines += "Nats-TTL: 1h\r\n" if self.dice.random() < 0.2 else ""
            blocks.append(f"NATS/1.0\r\n{lines}\r\n".encode() if lines and headers else b"")
        names = [f"s.{self.dice.randrange(subjects)}".encode() for _ in range(count)]
        bodies = []
        for block in blocks:
            self.serial += 1
            bodies.append(block + f"{self.serial}".encode().ljust(self.dice.randrange(size) + 1, b"."))
        frames = encode_frames(Columns(names, list(map(len, blocks)), bodies), self.now_ns, 512)
        return entries.encode_publish(self.now_ns, frames)

    def delete(self, seq: int) -> bytes:
        return entries.encode_delete(seq)

    def purge(self, **fields: Any) -> bytes:
        return entries.encode_purge(PurgeRequest(**fields))

    def expire(self, seconds: int) -> bytes:
        self.now_ns += seconds * SECOND
        return entries.encode_expire(self.now_ns)

    def consumer(self, name: str, **config: Any) -> bytes:
        made = ConsumerConfig(durable_name=name, name=name, ack_policy="explicit", **config)
        return encode_set(name, self.now_ns, made.to_json())

    def deliver(self, name: str, generation: int, first: int, last: int) -> bytes:
        return encode_delivered(name, generation, self.now_ns, [(first, last, 1)])
