"""Handlers of single stored messages: MSG.GET and MSG.DELETE, and the request they share with direct gets."""

from __future__ import annotations

from base64 import b64encode

from jetstore.model.api_errors import api_error
from jetstore.model.json import GoStruct, Int, Time, Uint64
from jetstore.model.requests import MessageGet
from jetstore.model.times import format_time
from jetstore.store.ports import Message
from server.jsapi.request import Backend, JsonDict, Request, require_body


class MessageGetRequest(GoStruct):
    """Body of MSG.GET and DIRECT.GET."""

    seq: Uint64 = 0
    last_by_subj: str = ""
    next_by_subj: str = ""
    batch: Int = 0
    max_bytes: Int = 0
    start_time: Time = 0
    multi_last: tuple[str, ...] = ()
    up_to_seq: Uint64 = 0
    up_to_time: Time = 0
    no_hdr: bool = False

    def to_value(self) -> MessageGet:
        """The engine's form of it."""
        return MessageGet(
            seq=self.seq,
            last_by_subj=self.last_by_subj,
            next_by_subj=self.next_by_subj,
            start_time_ns=self.start_time,
            batch=max(self.batch, 0),
            max_bytes=max(self.max_bytes, 0),
            multi_last=self.multi_last,
            up_to_seq=self.up_to_seq,
            up_to_time_ns=self.up_to_time,
            no_hdr=self.no_hdr,
        )


class _MessageDeleteRequest(GoStruct):
    seq: Uint64 = 0
    no_erase: bool = False


def stored_message_json(message: Message, *, no_hdr: bool = False) -> JsonDict:
    """The ``message`` object of MSG.GET."""
    shown: JsonDict = {"subject": message.subject.decode("utf-8", "replace"), "seq": message.seq}
    if message.header and not no_hdr:
        shown["hdrs"] = b64encode(message.header).decode()
    if message.data:
        shown["data"] = b64encode(message.data).decode()
    shown["time"] = format_time(message.time_ns)
    return shown


def _check_selectors(asked: MessageGetRequest) -> None:
    has_direct_only = bool(asked.batch or asked.max_bytes or asked.multi_last or asked.up_to_seq or asked.up_to_time)
    conflicts = (
        asked.seq and (asked.last_by_subj or asked.start_time),
        asked.last_by_subj and (asked.next_by_subj or asked.start_time),
    )
    has_selector = bool(asked.seq or asked.last_by_subj or asked.next_by_subj or asked.start_time)
    if has_direct_only or not has_selector or any(conflicts):
        raise api_error("JSBadRequestErr")


async def get_message(backend: Backend, request: Request) -> JsonDict:
    """STREAM.MSG.GET: one message by sequence, subject or time."""
    require_body(request.body)
    asked = MessageGetRequest(**backend.decode(MessageGetRequest, request.body, "JSApiMsgGetRequest"))
    _check_selectors(asked)
    message = await backend.node.get_message(request.names[0], asked.to_value(), is_confirmed=request.is_confirmed)
    return {"message": stored_message_json(message, no_hdr=asked.no_hdr)}


async def delete_message(backend: Backend, request: Request) -> JsonDict:
    """STREAM.MSG.DELETE."""
    require_body(request.body)
    asked = _MessageDeleteRequest(**backend.decode(_MessageDeleteRequest, request.body, "JSApiMsgDeleteRequest"))
    await backend.node.delete_message(request.names[0], asked.seq, asked.no_erase)
    return {"success": True}
