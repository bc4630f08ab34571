"""Handlers of account info and of the stream endpoints that do not touch single messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from jetstore.errors import ApiError, Corruption, LedElsewhere, NotNow, OutcomeUnknown
from jetstore.limits import SEQUENCE_MAX
from jetstore.model.api_errors import api_error
from jetstore.model.infos import StreamInfo, stream_info_json
from jetstore.model.json import GoStruct, Int, Uint64
from jetstore.model.requests import PurgeRequest, StreamInfoRequest
from jetstore.model.stream import StreamConfig
from jetstore.model.stream_checks import checked_stream
from jetstore.model.subjects import is_valid_subject
from server.jsapi.ports import StreamsElsewhere
from server.jsapi.request import Backend, JsonDict, Request, page, require_empty

NAMES_PER_PAGE: Final = 1024
INFOS_PER_PAGE: Final = 256
SUBJECTS_PER_PAGE: Final = 100_000
_NOT_FOUND: Final = 10059
_UNAVAILABLE: Final = 10008


class _StreamConfigRequest(StreamConfig):
    pedantic: bool = False


class _ListRequest(GoStruct):
    offset: Int = 0
    subject: str = ""


class _InfoRequest(GoStruct):
    offset: Int = 0
    deleted_details: bool = False
    subjects_filter: str = ""


class _PurgeRequest(GoStruct):
    filter: str = ""
    seq: Uint64 = 0
    keep: Uint64 = 0


def _decode_config(backend: Backend, request: Request) -> tuple[StreamConfig, bool]:
    fields = backend.decode(_StreamConfigRequest, request.body, "StreamConfigRequest")
    pedantic = fields.pop("pedantic", False)
    config = StreamConfig(**fields)
    if config.name != request.names[0]:
        raise api_error("JSStreamMismatchErr")
    if "/" in config.name or "\\" in config.name:
        raise api_error("JSStreamNameContainsPathSeparatorsErr")
    return config, pedantic


def _shown(backend: Backend, info: StreamInfo, domain: str = "") -> JsonDict:
    return stream_info_json(info, backend.clock.wall_ns(), dynamic_metadata=True, domain=domain)


async def _shown_elsewhere(backend: Backend, name: str, led: LedElsewhere) -> JsonDict:
    if backend.elsewhere is None:
        raise led
    try:
        return await backend.elsewhere.stream_info(name, is_dynamic=True, version=led.version)
    except ApiError as error:
        if led.version:  # it is decided: an error would say that it is not
            raise OutcomeUnknown(f"{name} was updated, and cannot be shown: {error}") from None
        raise


async def create_stream(backend: Backend, request: Request) -> JsonDict:
    """STREAM.CREATE: StreamInfo and ``did_create``."""
    config, pedantic = _decode_config(backend, request)
    checked = checked_stream(config, pedantic=pedantic, server=backend.server_limits)
    try:
        shown = _shown(backend, await backend.node.create_stream(checked))
    except LedElsewhere as led:
        shown = await _shown_elsewhere(backend, checked.name, led)
    shown["did_create"] = True
    return shown


async def update_stream(backend: Backend, request: Request) -> JsonDict:
    """STREAM.UPDATE: a full replacement of the configuration."""
    config, pedantic = _decode_config(backend, request)
    checked = checked_stream(config, pedantic=pedantic, server=backend.server_limits, is_create=False)
    try:
        return _shown(backend, await backend.node.update_stream(checked, pedantic), backend.domain)
    except LedElsewhere as led:
        return await _shown_elsewhere(backend, checked.name, led)


async def _names(backend: Backend, subject: str) -> Sequence[str]:
    await backend.node.require_streams()
    return backend.node.stream_names(subject) if not subject or is_valid_subject(subject) else ()


async def stream_names(backend: Backend, request: Request) -> JsonDict:
    """STREAM.NAMES, optionally only those that a subject (or pattern) can reach."""
    asked = _ListRequest(**backend.decode_optional(_ListRequest, request.body, "JSApiStreamNamesRequest"))
    shown, names = page(await _names(backend, asked.subject), asked.offset, NAMES_PER_PAGE)
    shown["streams"] = list(names) or None
    return shown


async def list_streams(backend: Backend, request: Request) -> JsonDict:
    """STREAM.LIST: infos, a page at a time. A stream deleted meanwhile is left out, a damaged one is ``missing``."""
    asked = _ListRequest(**backend.decode_optional(_ListRequest, request.body, "JSApiStreamListRequest"))
    shown, names = page(await _names(backend, asked.subject), asked.offset, INFOS_PER_PAGE)
    found: dict[str, JsonDict] = {}
    missing = []
    for name in names:
        try:
            info = await backend.node.stream_info(name, StreamInfoRequest())
        except ApiError as error:
            if error.err_code == _UNAVAILABLE:
                missing.append(name)
            elif error.err_code != _NOT_FOUND:
                raise
            continue
        except (NotNow, Corruption):
            missing.append(name)
            continue
        found[name] = stream_info_json(info, backend.clock.wall_ns(), domain=backend.domain)
        if len(found) % 32 == 0:
            await asyncio.sleep(0)
    if missing and backend.elsewhere is not None:
        found.update(await _infos_elsewhere(backend.elsewhere, missing))
        missing = [name for name in missing if name not in found]
    shown["streams"] = [found[name] for name in names if name in found]
    if missing:
        shown["missing"] = missing
    return shown


async def _infos_elsewhere(elsewhere: StreamsElsewhere, names: list[str]) -> dict[str, JsonDict]:
    """Infos of those that other nodes lead, as far as they can be had."""
    asked = [elsewhere.stream_info(name, is_dynamic=False) for name in names]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    found = {}
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, dict):
            found[name] = answer
        elif not isinstance(answer, ApiError):
            raise answer
    return found


async def stream_info(backend: Backend, request: Request) -> JsonDict:
    """STREAM.INFO, with a page of subjects or the deleted sequences where asked for."""
    asked = _InfoRequest(**backend.decode_optional(_InfoRequest, request.body, "JSApiStreamInfoRequest"))
    info = await backend.node.stream_info(
        request.names[0],
        StreamInfoRequest(
            deleted_details=asked.deleted_details,
            subjects_filter=asked.subjects_filter,
            offset=max(asked.offset, 0),
        ),
    )
    shown: JsonDict = {"total": 0, "offset": 0, "limit": 0}
    if asked.subjects_filter and info.subjects_total:
        shown = {"total": info.subjects_total, "offset": max(asked.offset, 0), "limit": SUBJECTS_PER_PAGE}
    shown.update(
        stream_info_json(
            info,
            backend.clock.wall_ns(),
            dynamic_metadata=True,
            cluster_leader=backend.server_name,
            domain=backend.domain,
        )
    )
    return shown


async def delete_stream(backend: Backend, request: Request) -> JsonDict:
    """STREAM.DELETE."""
    require_empty(request.body)
    await backend.node.delete_stream(request.names[0])
    return {"success": True}


async def purge_stream(backend: Backend, request: Request) -> JsonDict:
    """STREAM.PURGE: everything, or by filter, up to a sequence, or all but the newest."""
    asked = _PurgeRequest(**backend.decode_optional(_PurgeRequest, request.body, "JSApiStreamPurgeRequest"))
    if asked.seq and asked.keep:
        raise api_error("JSBadRequestErr")
    if asked.seq > SEQUENCE_MAX:
        raise api_error("JSStreamPurgeFailedF", err=f"sequences above {SEQUENCE_MAX} are not supported")
    purged = await backend.node.purge_stream(
        request.names[0], PurgeRequest(filter=asked.filter, seq=asked.seq, keep=asked.keep)
    )
    return {"success": True, "purged": purged}
