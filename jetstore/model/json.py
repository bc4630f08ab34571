"""JSON as Go's encoder and strict decoder have it, so that answers and refusals read the same.

``encode`` is compact and escapes ``< > &`` inside strings. ``decode_fields`` walks a request against the field types
of a pydantic model (the ``Annotated`` types below carry the Go type's name): field names match in any letter case,
unknown fields, wrong types, floats for integers, out-of-range numbers and trailing garbage raise ``DecodeError`` with
Go's wording. ``null`` leaves a field at its zero value, except for enumerations.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict

from jetstore.model.json_syntax import syntax_error
from jetstore.model.times import parse_time

JsonValue = Any  # Any: what json.loads gives
Decoder = Callable[[JsonValue, str], JsonValue]
EnumT = TypeVar("EnumT", bound=StrEnum)


class DecodeError(ValueError):
    """A request body that does not decode; the text is what follows ``invalid JSON: ``."""


class GoStruct(BaseModel):
    """Fields with types that ``decode_fields`` knows.

    pydantic builds a validator when the first object is made: most are asked for their fields only, and building all
    at a start takes a twentieth of it.
    """

    model_config = ConfigDict(defer_build=True)


@dataclass(frozen=True, slots=True)
class GoInt:
    """Marks an integer field with its Go type and range."""

    name: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class GoTime:
    """Marks a time field: RFC 3339 in JSON, nanoseconds since 1970 here (0 = not set)."""


@dataclass(frozen=True, slots=True)
class GoEnum:
    """Marks an enumeration: how a bad value is worded and whether letter case counts."""

    text: str = "can not unmarshal {quoted}"
    ignore_case: bool = False
    is_go_string: bool = False
    """Other JSON types are reported as not being a string."""


Int = Annotated[int, GoInt("int", -(2**63), 2**63 - 1)]
Int64 = Annotated[int, GoInt("int64", -(2**63), 2**63 - 1)]
Int32 = Annotated[int, GoInt("int32", -(2**31), 2**31 - 1)]
Uint64 = Annotated[int, GoInt("uint64", 0, 2**64 - 1)]
Duration = Annotated[int, GoInt("time.Duration", -(2**63), 2**63 - 1)]
Time = Annotated[int, GoTime()]


class JsonObject(list[tuple[str, JsonValue]]):
    """A decoded object as its pairs, in order, duplicates kept."""


class _Real(str):
    """The literal of a number that is not an integer."""

    __slots__ = ()


_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def encode(value: JsonValue) -> bytes:
    """Compact JSON as Go's encoder writes it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_ESCAPES).encode("utf-8", "replace")


def encode_indented(value: JsonValue, indent: int = 2) -> bytes:
    """The same, indented (monitoring pages)."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text.translate(_ESCAPES).encode("utf-8", "replace")


def parse(body: bytes, *, is_stream: bool = True) -> JsonValue:
    """The value with objects as ``JsonObject`` and other numbers than integers as their literal.

    ``is_stream``: whose words say what is wrong, see ``syntax_error``.
    """
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(
            text, object_pairs_hook=JsonObject, parse_float=_Real, parse_constant=_refuse_constant, parse_int=_integer
        )
    except (ValueError, RecursionError):
        raise DecodeError(syntax_error(body, is_stream=is_stream)) from None
    return value


def _refuse_constant(_name: str) -> JsonValue:
    raise ValueError("not JSON")


def _integer(literal: str) -> int | _Real:
    return int(literal) if len(literal) <= 20 else _Real(literal)


def decode_fields(model: type[BaseModel], body: bytes, go_name: str, *, strict: bool = True) -> dict[str, JsonValue]:
    """The fields that ``body`` sets, decoded, by name. ``null`` decodes to none. ``DecodeError`` otherwise.

    Not ``strict``: unknown fields are passed over, as by ``json.Unmarshal``.
    """
    value = parse(body, is_stream=strict)
    if value is None:
        return {}
    if not isinstance(value, JsonObject):
        raise DecodeError(f"json: cannot unmarshal {_kind(value)} into Go value of type server.{go_name}")
    return _decode_object(model, value, go_name, strict)


def fields_from_json(model: type[BaseModel], value: dict[str, JsonValue], go_name: str) -> dict[str, JsonValue]:
    """The same for a value that is already parsed (what we stored ourselves)."""
    return decode_fields(model, encode(value), go_name)


def _decode_object(model: type[BaseModel], pairs: JsonObject, path: str, strict: bool) -> dict[str, JsonValue]:
    decoders = _decoders(model, strict)
    decoded: dict[str, JsonValue] = {}
    for key, value in pairs:
        found = decoders.get(key) or decoders.get(key.lower())
        if found is None:
            if strict:
                raise DecodeError(f'json: unknown field "{key}"')
            continue
        name, decoder, takes_null = found
        if value is None and not takes_null:
            continue
        decoded[name] = decoder(value, f"{path}.{name}")
    return decoded


@cache
def _decoders(model: type[BaseModel], strict: bool) -> dict[str, tuple[str, Decoder, bool]]:
    hints = get_type_hints(model, include_extras=True)
    table: dict[str, tuple[str, Decoder, bool]] = {}
    for name in model.model_fields:
        decoder, _go_type, takes_null = _decoder_of(hints[name], strict)
        table[name.lower()] = (name, decoder, takes_null)
    return table


def _decoder_of(hint: Any, strict: bool) -> tuple[Decoder, str, bool]:  # Any: a type expression
    """Decoder, Go type name, and whether it wants to see ``null``."""
    origin = get_origin(hint)
    if origin is Annotated:
        base, marker = get_args(hint)[:2]
        if isinstance(marker, GoInt):
            return _integer_decoder(marker), marker.name, False
        if isinstance(marker, GoTime):
            return _decode_time, "time.Time", False
        assert isinstance(marker, GoEnum)
        return _enum_decoder(base, marker), "string", True
    if origin in (Union, types.UnionType):
        return _decoder_of(next(arg for arg in get_args(hint) if arg is not type(None)), strict)
    if origin in (tuple, list):
        return _list_decoder(get_args(hint)[0], strict)
    if origin is dict:
        return _decode_string_map, "map[string]string", False
    if hint is str:
        return _decode_string, "string", False
    if hint is bool:
        return _decode_bool, "bool", False
    assert isinstance(hint, type)
    assert issubclass(hint, BaseModel)
    return _model_decoder(hint, strict), f"server.{hint.__name__}", False


def _kind(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, _Real):
        return f"number {value}"
    if isinstance(value, int):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, JsonObject) else "array"


def _mismatch(value: JsonValue, path: str, go_type: str, *, literal: bool = False) -> DecodeError:
    kind = f"number {value}" if literal and isinstance(value, int) and not isinstance(value, bool) else _kind(value)
    into = path if path.rpartition(".")[2].isdigit() else f"Go struct field {path}"
    return DecodeError(f"json: cannot unmarshal {kind} into {into} of type {go_type}")


def _integer_decoder(marker: GoInt) -> Decoder:
    def decode(value: JsonValue, path: str) -> JsonValue:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _mismatch(value, path, marker.name)
        if not marker.low <= value <= marker.high:
            raise _mismatch(value, path, marker.name, literal=True)
        return value

    return decode


def _decode_string(value: JsonValue, path: str) -> JsonValue:
    if type(value) is not str:
        raise _mismatch(value, path, "string")
    return _clean(value)


def _decode_bool(value: JsonValue, path: str) -> JsonValue:
    if type(value) is not bool:
        raise _mismatch(value, path, "bool")
    return value


def _clean(text: str) -> str:
    """Lone surrogates (``\\ud800``) become U+FFFD, as in Go."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _decode_time(value: JsonValue, path: str) -> JsonValue:
    if type(value) is not str:
        raise _mismatch(value, path, "time.Time")
    try:
        return parse_time(value)
    except ValueError as error:
        raise DecodeError(str(error)) from None


def _enum_decoder(enum: type[EnumT], marker: GoEnum) -> Decoder:
    def decode(value: JsonValue, _path: str) -> JsonValue:
        if type(value) is str:
            text = value.lower() if marker.ignore_case else value
            for member in enum:
                if member.value == text:
                    return member
        elif value is not None and marker.is_go_string:
            raise DecodeError(f"json: cannot unmarshal {_kind(value)} into Go value of type string")
        raw = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        raise DecodeError(marker.text.format(quoted=json.dumps(raw, ensure_ascii=False), raw=raw))

    return decode


def _list_decoder(item: Any, strict: bool) -> tuple[Decoder, str, bool]:  # Any: a type expression
    decoder, go_type, _ = _decoder_of(item, strict)
    list_type = f"[]*{go_type}" if go_type.startswith("server.") else f"[]{go_type}"
    zero: JsonValue = {"string": "", "time.Duration": 0}.get(go_type)

    def decode(value: JsonValue, path: str) -> JsonValue:
        if not isinstance(value, list) or isinstance(value, JsonObject):
            raise _mismatch(value, path, list_type)
        return tuple(
            zero if element is None and zero is not None else decoder(element, f"{path}.{i}")
            for i, element in enumerate(value)
        )

    return decode, list_type, False


def _decode_string_map(value: JsonValue, path: str) -> JsonValue:
    if not isinstance(value, JsonObject):
        raise _mismatch(value, path, "map[string]string")
    decoded: dict[str, str] = {}
    for key, item in value:
        if item is not None and type(item) is not str:
            raise _mismatch(item, f"{path}.{key}", "string")
        decoded[_clean(key)] = _clean(item or "")
    return dict(sorted(decoded.items()))


def _model_decoder(model: type[BaseModel], strict: bool) -> Decoder:
    def decode(value: JsonValue, path: str) -> JsonValue:
        if not isinstance(value, JsonObject):
            raise _mismatch(value, path, f"server.{model.__name__}")
        return model(**_decode_object(model, value, path, strict))

    return decode
