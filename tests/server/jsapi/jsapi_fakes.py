"""An in-memory node and router for the API table: assets are configurations only, messages a list per stream."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jetstore.limits import Limits
from jetstore.model.api_errors import api_error
from jetstore.model.catalogue import Catalogue
from jetstore.model.consumer import ConsumerAction, ConsumerConfig
from jetstore.model.consumer_checks import admit_consumer, check_priority_group, check_reset, checked_consumer
from jetstore.model.infos import AccountInfo, ConsumerInfo, PauseState, PriorityGroupState, StreamInfo, StreamState
from jetstore.model.requests import MessageGet, PurgeRequest, StreamInfoRequest
from jetstore.model.stream import StreamConfig
from jetstore.model.stream_checks import admit_create, admit_update
from jetstore.node.backup.snapshot import SnapshotRequest
from jetstore.node.ports import Inbound, InboundHandler
from jetstore.store.ports import Message
from jetstore.types import Nanos
from server.jsapi.handler import ApiHandler
from server.jsapi.ports import ClusterOperations

NOW_NS = 1_700_000_000_123_456_789


@dataclass
class FakeStream:
    config: StreamConfig
    consumers: dict[str, ConsumerConfig] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)


class FakeNode:
    """Just enough of a node: the checks are the real ones."""

    def __init__(self) -> None:
        self.streams: dict[str, FakeStream] = {}
        self.cluster: ClusterOperations | None = None
        self.calls: list[str] = []
        self.is_sure = True
        """What ``confirm`` says of streams that are here."""
        self.gate: asyncio.Event | None = None
        """While unset, ``purge_stream`` waits."""
        self.failure: BaseException | None = None
        """Raised by ``delete_stream``."""
        self.read_s = 0.0
        """How long a read keeps the processor busy."""

    def _stream(self, name: str) -> FakeStream:
        if name not in self.streams:
            raise api_error("JSStreamNotFoundErr")
        return self.streams[name]

    def _consumer(self, stream: str, consumer: str) -> ConsumerConfig:
        consumers = self._stream(stream).consumers
        if consumer not in consumers:
            raise api_error("JSConsumerNotFoundErr")
        return consumers[consumer]

    def _configs(self) -> Catalogue:
        return Catalogue.of(stream.config for stream in self.streams.values())

    def _info(self, stream: FakeStream) -> StreamInfo:
        messages = stream.messages
        state = StreamState(consumer_count=len(stream.consumers))
        if messages:
            state = StreamState(
                messages=len(messages),
                first_seq=messages[0].seq,
                first_ts_ns=messages[0].time_ns,
                last_seq=messages[-1].seq,
                last_ts_ns=messages[-1].time_ns,
                num_subjects=len({message.subject for message in messages}),
                consumer_count=len(stream.consumers),
            )
        return StreamInfo(stream.config, NOW_NS, state)

    def account_info(self) -> AccountInfo:
        return AccountInfo(streams=len(self.streams), consumers=sum(len(s.consumers) for s in self.streams.values()))

    async def create_stream(self, config: StreamConfig) -> StreamInfo:
        if admit_create(config, self._configs()):
            self.streams[config.name] = FakeStream(config)
        return self._info(self.streams[config.name])

    async def update_stream(self, config: StreamConfig, pedantic: bool) -> StreamInfo:
        stream = self._stream(config.name)
        stream.config = admit_update(
            stream.config,
            config,
            self._configs(),
            consumers=list(stream.consumers.values()),
            pedantic=pedantic,
        )
        return self._info(stream)

    async def delete_stream(self, name: str) -> None:
        if self.failure is not None:
            raise self.failure
        self._stream(name)
        del self.streams[name]

    async def require_streams(self) -> None:
        """Nobody else leads."""

    def stream_names(self, subject: str = "") -> Sequence[str]:
        found = set(self._configs().colliding(subject)) if subject else self.streams
        return sorted(found)

    async def stream_info(self, name: str, request: StreamInfoRequest) -> StreamInfo:
        self.calls.append(f"info {name}")
        stream = self._stream(name)
        info = self._info(stream)
        if request.subjects_filter:
            counts: dict[str, int] = {}
            for message in stream.messages:
                counts[message.subject.decode()] = counts.get(message.subject.decode(), 0) + 1
            subjects = dict(sorted(counts.items())[request.offset :])
            info = StreamInfo(info.config, info.created_ns, replace(info.state, subjects=subjects), len(counts))
        return info

    async def require_stream(self, name: str) -> None:
        self._stream(name)

    async def snapshot_stream(
        self, name: str, request: SnapshotRequest, client: dict[str, Any]
    ) -> tuple[StreamConfig, StreamState]:
        return self._stream(name).config, StreamState()

    async def restore_stream(self, config: StreamConfig, client: dict[str, Any]) -> bytes:
        if config.name in self.streams:
            raise api_error("JSStreamNameExistRestoreFailedErr")
        return b"restore"

    async def purge_stream(self, name: str, request: PurgeRequest) -> int:
        self.calls.append(f"purge {name}")
        if self.gate is not None:
            await self.gate.wait()
        stream = self._stream(name)
        count = len(stream.messages)
        stream.messages.clear()
        return count

    def _find(self, name: str, request: MessageGet) -> Message:
        time.sleep(self.read_s)
        for message in self._stream(name).messages:
            if message.seq == request.seq or message.subject.decode() in (request.last_by_subj, request.next_by_subj):
                return message
        raise api_error("JSNoMessageFoundErr")

    async def confirm(self, name: str) -> bool:
        self.calls.append(f"confirm {name}")
        return self.is_sure and name in self.streams

    async def get_message(self, name: str, request: MessageGet, *, is_confirmed: bool = False) -> Message:
        self.calls.append(f"get {request.seq} {is_confirmed}")
        return self._find(name, request)

    async def delete_message(self, name: str, seq: int, no_erase: bool) -> None:
        stream = self._stream(name)
        if all(message.seq != seq for message in stream.messages):
            raise api_error("JSSequenceNotFoundErrF", seq=seq)
        stream.messages = [message for message in stream.messages if message.seq != seq]

    def direct_reader(self, name: str) -> str:
        return name if name in self.streams and self.streams[name].config.allow_direct else ""

    async def direct_get(self, name: str, request: MessageGet) -> Message:
        return self._find(name, request)

    async def direct_get_batch(self, name: str, request: MessageGet) -> tuple[Sequence[Message], int, int]:
        messages = [message for message in self._stream(name).messages if message.seq >= request.seq]
        if not messages:
            raise api_error("JSNoMessageFoundErr")
        return messages[: request.batch or len(messages)], len(messages), 9 if request.multi_last else 0

    async def create_consumer(
        self, stream: str, config: ConsumerConfig, action: ConsumerAction, pedantic: bool
    ) -> ConsumerInfo:
        parent = self._stream(stream)
        checked = checked_consumer(config, parent.config, pedantic=pedantic)
        admitted = admit_consumer(checked, parent.config, parent.consumers, action)
        if admitted is not None:
            parent.consumers[config.name] = admitted
        return await self.consumer_info(stream, config.name)

    def consumer_names(self, stream: str) -> Sequence[str]:
        return sorted(self._stream(stream).consumers)

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo:
        config = self._consumer(stream, consumer)
        groups = tuple(map(PriorityGroupState, config.priority_groups[:1]))
        return ConsumerInfo(stream, consumer, NOW_NS, config, priority_groups=groups)

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        self._consumer(stream, consumer)
        del self.streams[stream].consumers[consumer]

    async def pause_consumer(self, stream: str, consumer: str, pause_until_ns: int) -> PauseState:
        self._consumer(stream, consumer)
        if pause_until_ns <= NOW_NS:
            return PauseState(False)
        return PauseState(True, pause_until_ns, pause_until_ns - NOW_NS)

    async def unpin_consumer(self, stream: str, consumer: str, group: str) -> None:
        check_priority_group(group, self._consumer(stream, consumer))

    async def reset_consumer(self, stream: str, consumer: str, seq: int) -> tuple[ConsumerInfo, int]:
        check_reset(self._consumer(stream, consumer), seq, 0)
        return await self.consumer_info(stream, consumer), seq or 1


class FakeSubscription:
    def close(self) -> None:
        """Nothing holds it."""


class FakeOutlet:
    """Routes requests to the handlers by prefix and keeps what they publish."""

    domain = ""

    def __init__(self) -> None:
        self.handlers: list[tuple[bytes, InboundHandler]] = []
        self.interest: set[bytes] = set()
        self.sent: list[tuple[bytes, bytes, bytes]] = []
        """(subject, header, body)."""
        self._arrived = asyncio.Event()

    def subscribe(self, subject: bytes, handler: InboundHandler) -> FakeSubscription:
        self.handlers.append((subject, handler))
        return FakeSubscription()

    def publish(
        self,
        subjects: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
        replies: Sequence[bytes] = (),
    ) -> None:
        for i, subject in enumerate(subjects):
            length = header_lens[i] if header_lens else 0
            self.sent.append((subject, payloads[i][:length], payloads[i][length:]))
        self._arrived.set()

    def has_interest(self, target: bytes, queue: bytes = b"") -> bool:
        return target in self.interest

    def pub_acks(self, stream: bytes, replies: Sequence[bytes], seqs: Sequence[int]) -> None:
        raise AssertionError("the API table acknowledges no publish")

    def deliver(self, *_args: Any) -> int:
        raise AssertionError("the API table delivers nothing")

    def pending_bytes(self, target: bytes) -> int:
        return 0

    def when_writable(self, target: bytes, callback: Callable[[], None]) -> None:
        raise AssertionError("the API table never waits for room")

    def watch_interest(self, target: bytes, callback: Callable[[bool], None]) -> FakeSubscription:
        raise AssertionError("the API table watches no interest")

    def send(self, *requests: tuple[str, bytes, bytes], header: bytes = b"", client: object = None) -> None:
        """Publish (subject, reply, body) requests in one run per handler."""
        for pattern, handler in self.handlers:
            prefix = pattern.removesuffix(b">")
            mine = [request for request in requests if _matches(request[0].encode(), pattern, prefix)]
            if mine:
                handler.on_messages(
                    Inbound(
                        [subject.encode() for subject, _, _ in mine],
                        [reply for _, reply, _ in mine],
                        [len(header)] * len(mine) if header else (),
                        [header + body for _, _, body in mine],
                        "$G",
                        client,
                    )
                )

    async def wait_for(self, count: int) -> None:
        """Until this many messages were published in all."""
        while len(self.sent) < count:
            self._arrived.clear()
            await self._arrived.wait()


def _matches(subject: bytes, pattern: bytes, prefix: bytes) -> bool:
    return subject == pattern or (prefix != pattern and subject.startswith(prefix))


class FakeClock:
    def wall_ns(self) -> Nanos:
        return Nanos(NOW_NS)


class Rig:
    """A handler between a fake node and a fake router."""

    def __init__(self, limits: Limits | None = None, *, is_system: bool = False) -> None:
        self.node = FakeNode()
        self.outlet = FakeOutlet()
        self.api = ApiHandler(
            self.node,
            self.outlet,
            FakeClock(),
            random.Random(7),
            limits or Limits(),
            server_name="srv",
            client_info=lambda _client: {"kind": "Client"},
            is_system=is_system,
        )
        self.api.start()

    async def settle(self) -> None:
        """Until every request has been dealt with."""
        while self.api._tasks:
            await asyncio.wait(list(self.api._tasks))
            await asyncio.sleep(0)

    async def ask(self, subject: str, body: bytes = b"", header: bytes = b"") -> bytes:
        """The body of the (first) reply."""
        return (await self.ask_all(subject, body, header=header))[0][2]

    async def ask_all(
        self, subject: str, body: bytes = b"", count: int = 1, header: bytes = b""
    ) -> list[tuple[bytes, bytes, bytes]]:
        """The next ``count`` published messages."""
        before = len(self.outlet.sent)
        self.outlet.send((subject, b"inbox", body), header=header)
        await self.outlet.wait_for(before + count)
        return self.outlet.sent[before : before + count]
