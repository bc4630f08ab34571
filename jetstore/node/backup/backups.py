"""``Backups``: the snapshots and restores under way on one node, their number bounded, and what is told about them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import structlog

from jetstore.errors import ApiError, ArchiveError
from jetstore.meta.stream_key import account_of, name_of
from jetstore.model.api_errors import api_error, error_json
from jetstore.model.infos import StreamState, stream_info_json, stream_state_json
from jetstore.model.json import encode
from jetstore.model.requests import StreamInfoRequest
from jetstore.model.times import format_time
from jetstore.node.advisories import StreamAdvisories, nuid
from jetstore.node.backup.restore import OpenStream, RestoreSession
from jetstore.node.backup.snapshot import SnapshotRequest, SnapshotSession
from jetstore.types import GroupUid

if TYPE_CHECKING:
    from jetstore.node.node import Node
    from jetstore.node.stream_group import StreamGroup

log = structlog.get_logger(__name__)

Client = dict[str, Any]
"""Who asked, as advisories show it. Any: JSON values."""


class Backups:
    """Starts sessions and owns them. ``stop`` ends all at once."""

    def __init__(self, node: Node) -> None:
        """Nothing is under way."""
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()
        self._snapshots = 0
        self._restores: set[str] = set()
        self.restoring: set[GroupUid] = set()
        """Streams that are being made from archives here: the metadata keeps them for as long."""

    def stop(self) -> None:
        """End everything where it is. Idempotent."""
        for task in self._tasks:
            task.cancel()

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._node.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("backup failed", error=repr(error), exc_info=error)

    def _advisories(self, stream: str) -> StreamAdvisories:
        node = self._node
        return StreamAdvisories(node.outlet_of(account_of(stream)), node.clock, node.parts.rng, name_of(stream))

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def start_snapshot(self, group: StreamGroup, request: SnapshotRequest, client: Client) -> StreamState:
        """Send the stream as of now, from the loop's next turn on; its counters. Raises ``ApiError``."""
        node = self._node
        if self._snapshots >= node.limits.snapshots_max:
            raise api_error("JSInsufficientResourcesErr")
        try:
            session = SnapshotSession(node, group, request, nuid(node.parts.rng))
        except ArchiveError as error:
            raise api_error("JSStreamSnapshotErrF", err=error) from None
        self._snapshots += 1
        self._own(self._snapshot(group.key, session, client))
        return session.state

    async def _snapshot(self, stream: str, session: SnapshotSession, client: Client) -> None:
        clock = self._node.clock
        start_ns = clock.wall_ns()
        advisories = self._advisories(stream)
        try:
            state = stream_state_json(session.state)
            advisories.tell("SNAPSHOT_CREATE", "snapshot_create", state=state, client=client)
            reason = await session.run()
        finally:
            self._snapshots -= 1
        end_ns = clock.wall_ns()
        fields: dict[str, Any] = {"start": format_time(start_ns), "end": format_time(end_ns), "client": client}
        if reason:
            fields["error"] = reason
            log.warning("snapshot failed", stream=stream, reason=reason)
        else:
            log.info("snapshot complete", stream=stream, bytes=session.state.bytes)
        advisories.tell("SNAPSHOT_COMPLETE", "snapshot_complete", **fields)

    # -- restores -----------------------------------------------------------------------------------------------------

    def start_restore(self, name: str, open_stream: OpenStream, client: Client) -> bytes:
        """The subject that takes the archive's chunks. ``name``: the stream's key. Raises ``ApiError``."""
        node = self._node
        if name in self._restores:
            raise api_error("JSStreamNameExistRestoreFailedErr")
        if len(self._restores) >= node.limits.restores_max:
            raise api_error("JSInsufficientResourcesErr")
        subject = f"$JS.SNAPSHOT.RESTORE.{name_of(name)}.{nuid(node.parts.rng)}".encode()
        session = RestoreSession(node, name, subject, open_stream)
        self._restores.add(name)
        self._own(self._restore(name, session, client))
        return subject

    async def _restore(self, name: str, session: RestoreSession, client: Client) -> None:
        clock = self._node.clock
        start_ns = clock.wall_ns()
        advisories = self._advisories(name)
        try:
            advisories.tell("RESTORE_CREATE", "restore_create", client=client)
            result = await session.run()
        finally:
            self._restores.discard(name)
        if result is None:
            return
        made, reply = result
        end_ns = clock.wall_ns()
        body: dict[str, Any] = {"type": "io.nats.jetstream.api.v1.stream_create_response"}
        if isinstance(made, ApiError):
            body["error"] = error_json(made)
            log.warning("restore failed", stream=name, bytes=session.bytes, reason=made.description)
        else:
            body |= stream_info_json(made.info(StreamInfoRequest()), end_ns, dynamic_metadata=True)
            log.info("restore complete", stream=name, bytes=session.bytes)
            advisories.tell("CREATED", "stream_action", action="create")
        advisories.tell(
            "RESTORE_COMPLETE",
            "restore_complete",
            start=format_time(start_ns),
            end=format_time(end_ns),
            bytes=session.bytes,
            client=client,
        )
        if reply:
            self._node.outlet_of(account_of(name)).publish([reply], (), [encode(body)])
