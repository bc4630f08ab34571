"""Handlers of STREAM.SNAPSHOT and STREAM.RESTORE; what comes after the answer is the engine's (``node/backup``)."""

from __future__ import annotations

from pydantic import BaseModel

from jetstore.model.api_errors import api_error
from jetstore.model.infos import stream_state_json
from jetstore.model.json import Int
from jetstore.model.subjects import is_valid_literal
from jetstore.node.backup.snapshot import SnapshotRequest
from server.jsapi.request import Backend, JsonDict, Request, require_body


class _SnapshotRequest(BaseModel):
    deliver_subject: str = ""
    no_consumers: bool = False
    chunk_size: Int = 0
    window_size: Int = 0
    jsck: bool = False


async def snapshot_stream(backend: Backend, request: Request) -> JsonDict:
    """STREAM.SNAPSHOT: configuration and state; the chunks follow. ``jsck`` changes nothing: all is checked always."""
    require_body(request.body)
    backend.node.require_stream(request.names[0])
    asked = _SnapshotRequest(**backend.decode(_SnapshotRequest, request.body, "JSApiStreamSnapshotRequest"))
    if not is_valid_literal(asked.deliver_subject):
        raise api_error("JSSnapshotDeliverSubjectInvalidErr")
    wanted = SnapshotRequest(asked.deliver_subject, asked.no_consumers, asked.chunk_size, asked.window_size)
    config, state = await backend.node.snapshot_stream(request.names[0], wanted, backend.client_info(request.client))
    return {"config": config.to_json(), "state": stream_state_json(state)}
