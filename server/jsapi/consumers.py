"""Handlers of the consumer endpoints (pull requests are the delivery code's own)."""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import Field

from jetstore.errors import ApiError
from jetstore.model.api_errors import api_error
from jetstore.model.consumer import ConsumerAction, ConsumerConfig
from jetstore.model.consumer_checks import check_consumer_name, check_consumer_replicas
from jetstore.model.infos import ConsumerInfo, consumer_info_json, pause_state_json
from jetstore.model.json import GoEnum, GoStruct, Int, Time, Uint64
from jetstore.model.names import consumer_name
from server.jsapi.request import Backend, JsonDict, Request, page, require_empty
from server.jsapi.streams import INFOS_PER_PAGE, NAMES_PER_PAGE

_CONSUMER_NOT_FOUND = 10014


class _CreateRequest(GoStruct):
    stream_name: str = ""
    config: ConsumerConfig = Field(default_factory=ConsumerConfig)
    action: Annotated[ConsumerAction, GoEnum("unknown consumer action: {raw}")] = ConsumerAction.CREATE_OR_UPDATE
    pedantic: bool = False


class _OffsetRequest(GoStruct):
    offset: Int = 0


class _PauseRequest(GoStruct):
    pause_until: Time = 0


class _ResetRequest(GoStruct):
    seq: Uint64 = 0


class _UnpinRequest(GoStruct):
    group: str = ""


def _shown(backend: Backend, info: ConsumerInfo) -> JsonDict:
    return consumer_info_json(info, backend.clock.wall_ns(), dynamic_metadata=True)


def _decode_create(backend: Backend, request: Request) -> _CreateRequest:
    asked = _CreateRequest(**backend.decode(_CreateRequest, request.body, "CreateConsumerRequest"))
    if asked.stream_name != request.names[0]:
        raise api_error("JSStreamMismatchErr")
    return asked


async def _create(backend: Backend, asked: _CreateRequest, name: str) -> JsonDict:
    check_consumer_replicas(asked.config, backend.server_limits)
    check_consumer_name(name)
    config = asked.config.model_copy(update={"name": name})
    info = await backend.node.create_consumer(asked.stream_name, config, asked.action, asked.pedantic)
    return _shown(backend, info)


async def create_consumer(backend: Backend, request: Request) -> JsonDict:
    """CONSUMER.CREATE in its three forms: stream; stream and name; stream, name and filter subject."""
    asked = _decode_create(backend, request)
    config = asked.config
    if len(request.names) == 1:
        if config.durable_name:
            raise api_error("JSConsumerEphemeralWithDurableNameErr")
        return await _create(backend, asked, config.name or consumer_name(backend.dice))
    name = request.names[1]
    if config.durable_name and config.durable_name != name:
        raise api_error("JSConsumerDurableNameNotMatchSubjectErr")
    if len(request.names) > 2:
        if config.filter_subjects:
            raise api_error("JSConsumerMultipleFiltersNotAllowed")
        if config.filter_subject != ".".join(request.names[2:]):
            raise api_error("JSConsumerCreateFilterSubjectMismatchErr")
    return await _create(backend, asked, name)


async def create_durable(backend: Backend, request: Request) -> JsonDict:
    """CONSUMER.DURABLE.CREATE, the older form for durable consumers."""
    asked = _decode_create(backend, request)
    if not asked.config.durable_name:
        raise api_error("JSConsumerDurableNameNotSetErr")
    if asked.config.durable_name != request.names[1]:
        raise api_error("JSConsumerDurableNameNotMatchSubjectErr")
    return await _create(backend, asked, request.names[1])


async def consumer_names(backend: Backend, request: Request) -> JsonDict:
    """CONSUMER.NAMES."""
    asked = _OffsetRequest(**backend.decode_optional(_OffsetRequest, request.body, "JSApiConsumersRequest"))
    await backend.node.require_stream(request.names[0])
    shown, names = page(backend.node.consumer_names(request.names[0]), asked.offset, NAMES_PER_PAGE)
    shown["consumers"] = list(names)
    return shown


async def list_consumers(backend: Backend, request: Request) -> JsonDict:
    """CONSUMER.LIST: infos, a page at a time. A consumer deleted meanwhile is left out."""
    asked = _OffsetRequest(**backend.decode_optional(_OffsetRequest, request.body, "JSApiConsumersRequest"))
    stream = request.names[0]
    await backend.node.require_stream(stream)
    shown, names = page(backend.node.consumer_names(stream), asked.offset, INFOS_PER_PAGE)
    infos = []
    for name in names:
        try:
            info = await backend.node.consumer_info(stream, name)
        except ApiError as error:
            if error.err_code != _CONSUMER_NOT_FOUND:
                raise
            continue
        infos.append(consumer_info_json(info, backend.clock.wall_ns()))
        if len(infos) % 32 == 0:
            await asyncio.sleep(0)
    shown["consumers"] = infos
    return shown


async def consumer_info(backend: Backend, request: Request) -> JsonDict:
    """CONSUMER.INFO."""
    require_empty(request.body)
    return _shown(backend, await backend.node.consumer_info(*request.names))


async def delete_consumer(backend: Backend, request: Request) -> JsonDict:
    """CONSUMER.DELETE."""
    require_empty(request.body)
    await backend.node.delete_consumer(*request.names)
    return {"success": True}


async def pause_consumer(backend: Backend, request: Request) -> JsonDict:
    """CONSUMER.PAUSE: until a time; empty, zero or past = resume."""
    asked = _PauseRequest(**backend.decode_optional(_PauseRequest, request.body, "JSApiConsumerPauseRequest"))
    stream, consumer = request.names
    return pause_state_json(await backend.node.pause_consumer(stream, consumer, asked.pause_until))


async def reset_consumer(backend: Backend, request: Request) -> JsonDict | None:
    """CONSUMER.RESET: deliver again from a sequence. A missing consumer gets no answer, as in nats-server."""
    fields = backend.decode(_ResetRequest, request.body, "JSApiConsumerResetRequest", strict=False)
    stream, consumer = request.names
    try:
        info, seq = await backend.node.reset_consumer(stream, consumer, fields.get("seq", 0))
    except ApiError as error:
        if error.err_code in (10014, 10059):
            return None
        raise
    shown = _shown(backend, info)
    shown["reset_seq"] = seq
    return shown


async def unpin_consumer(backend: Backend, request: Request) -> JsonDict:
    """CONSUMER.UNPIN."""
    if not request.body:
        raise api_error("JSInvalidJSONErr", err="unexpected end of JSON input")
    fields = backend.decode(_UnpinRequest, request.body, "JSApiConsumerUnpinRequest", strict=False)
    group = fields.get("group", "")
    if not group:
        raise api_error("JSInvalidJSONErr", err="consumer group not specified")
    stream, consumer = request.names
    await backend.node.unpin_consumer(stream, consumer, group)
    return {}
