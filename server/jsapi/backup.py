"""Handlers of STREAM.SNAPSHOT and STREAM.RESTORE; what comes after the answer is the engine's (``node/backup``)."""

from __future__ import annotations

from pydantic import Field

from jetstore.model.api_errors import api_error
from jetstore.model.infos import stream_state_json
from jetstore.model.json import GoStruct, Int, Time, Uint64
from jetstore.model.stream import StreamConfig
from jetstore.model.stream_checks import checked_stream
from jetstore.model.subjects import is_valid_literal
from jetstore.node.backup.snapshot import SnapshotRequest
from server.jsapi.request import Backend, JsonDict, Request, require_body


class _SnapshotRequest(GoStruct):
    deliver_subject: str = ""
    no_consumers: bool = False
    chunk_size: Int = 0
    window_size: Int = 0
    jsck: bool = False


async def snapshot_stream(backend: Backend, request: Request) -> JsonDict:
    """STREAM.SNAPSHOT: configuration and state; the chunks follow. ``jsck`` changes nothing: all is checked always."""
    require_body(request.body)
    await backend.node.require_stream(request.names[0])
    asked = _SnapshotRequest(**backend.decode(_SnapshotRequest, request.body, "JSApiStreamSnapshotRequest"))
    if not is_valid_literal(asked.deliver_subject):
        raise api_error("JSSnapshotDeliverSubjectInvalidErr")
    wanted = SnapshotRequest(asked.deliver_subject, asked.no_consumers, asked.chunk_size, asked.window_size)
    config, state = await backend.node.snapshot_stream(request.names[0], wanted, backend.client_info(request.client))
    return {"config": config.to_json(), "state": stream_state_json(state)}


class _Lost(GoStruct):
    msgs: tuple[Uint64, ...] = ()
    bytes: Uint64 = 0


class StreamState(GoStruct):
    """A request's ``state``: it must be one, and the archive's own counts. Named as Go's type, for the refusals."""

    messages: Uint64 = 0
    bytes: Uint64 = 0
    first_seq: Uint64 = 0
    first_ts: Time = 0
    last_seq: Uint64 = 0
    last_ts: Time = 0
    num_subjects: Int = 0
    num_deleted: Int = 0
    deleted: tuple[Uint64, ...] = ()
    lost: _Lost = Field(default_factory=_Lost)
    consumer_count: Int = 0


class _RestoreRequest(GoStruct):
    config: StreamConfig = Field(default_factory=StreamConfig)
    state: StreamState = Field(default_factory=StreamState)


async def restore_stream(backend: Backend, request: Request) -> JsonDict:
    """STREAM.RESTORE: the subject that takes the archive's chunks."""
    require_body(request.body)
    asked = _RestoreRequest(**backend.decode(_RestoreRequest, request.body, "JSApiStreamRestoreRequest"))
    name = request.names[0]
    config = asked.config if asked.config.name else asked.config.model_copy(update={"name": name})
    if config.name != name:
        raise api_error("JSStreamMismatchErr")
    if "/" in name or "\\" in name:
        raise api_error("JSStreamNameContainsPathSeparatorsErr")
    checked = checked_stream(config, server=backend.server_limits, is_create=False)
    subject = await backend.node.restore_stream(checked, backend.client_info(request.client))
    return {"deliver_subject": subject.decode()}
