"""One API request, and the decoding and paging that several endpoints share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from jetstore.clock import Clock
from jetstore.model.api_errors import api_error
from jetstore.model.infos import ApiStats
from jetstore.model.json import DecodeError, JsonObject, decode_fields, parse
from jetstore.model.names import Dice
from jetstore.model.server_limits import ServerLimits
from jetstore.stream.headers import value as header_value
from server.jsapi.ports import JetStreamNode, StreamsElsewhere

JsonDict = dict[str, Any]  # Any: a JSON value
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came. ``names`` are the subject's tokens after the endpoint's own."""

    subject: bytes
    names: tuple[str, ...]
    reply: bytes
    header: bytes
    body: bytes
    client: object
    is_confirmed: bool = False
    """It was sure that this node led the stream after the request had come."""

    def header_value(self, name: bytes) -> bytes:
        """A request header's value or b""."""
        return header_value(self.header, name) if self.header else b""


@dataclass(frozen=True, slots=True)
class Backend:
    """What handlers work with."""

    node: JetStreamNode
    clock: Clock
    dice: Dice
    server_name: str
    server_limits: ServerLimits
    api_stats: Callable[[], ApiStats]
    client_info: Callable[[object], JsonDict]
    """Who a client is, as advisories show it."""
    is_strict: bool = True
    """Unknown fields in requests are errors."""
    elsewhere: StreamsElsewhere | None = None
    """What other nodes know; None: there are none."""
    domain: str = ""
    """The JetStream domain; "" = none."""
    of_account: Callable[[str], JetStreamNode | None] = lambda account: None
    """What an account has, for the system account; None: nothing."""

    def decode(self, model: type[BaseModel], body: bytes, go_name: str, *, strict: bool | None = None) -> JsonDict:
        """Fields of a body; 10025 if it does not decode. An empty body has none."""
        if not body:
            return {}
        try:
            return decode_fields(model, body, go_name, strict=self.is_strict if strict is None else strict)
        except DecodeError as error:
            raise api_error("JSInvalidJSONErr", err=error) from None

    def decode_optional(self, model: type[BaseModel], body: bytes, go_name: str) -> JsonDict:
        """The same where a body that does not look like JSON counts as none."""
        return self.decode(model, body, go_name) if body.lstrip()[:1] in (b"{", b"[") else {}


def is_empty_body(body: bytes) -> bool:
    """Whether it is nothing or an empty JSON object."""
    if not body:
        return True
    try:
        value = parse(body)
    except DecodeError:
        return False
    return isinstance(value, JsonObject) and not value


def require_empty(body: bytes) -> None:
    """10038 unless there is no body."""
    if not is_empty_body(body):
        raise api_error("JSNotEmptyRequestErr")


def require_body(body: bytes) -> None:
    """10003 if there is no body."""
    if is_empty_body(body):
        raise api_error("JSBadRequestErr")


def page(items: Sequence[ItemT], offset: int, limit: int) -> tuple[JsonDict, Sequence[ItemT]]:
    """The paging fields and the slice of a listing that starts at ``offset`` (clamped into it)."""
    start = min(max(offset, 0), len(items))
    return {"total": len(items), "offset": start, "limit": limit}, items[start : start + limit]
