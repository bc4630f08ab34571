"""CONNECT: its JSON, with the strictness and the leniency clients rely on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn


class BadJson(Exception):
    """The argument of CONNECT or INFO is not a JSON object with the right types. The connection closes silently."""


@dataclass(slots=True)
class ConnectOptions:
    """What the client says about itself. The defaults hold for absent fields, and before any CONNECT."""

    verbose: bool = True
    pedantic: bool = True
    echo: bool = True
    tls_required: bool = False
    headers: bool = False
    no_responders: bool = False
    protocol: int = 0
    user: str = ""
    password: str = ""
    auth_token: str = ""
    nkey: str = ""
    sig: str = ""
    jwt: str = ""
    name: str = ""
    lang: str = ""
    version: str = ""
    account: str = ""
    new_account: bool = False


def completed(given: ConnectOptions, more: Mapping[str, str]) -> ConnectOptions:
    """The options with others in the place of those that are empty."""
    missing: dict[str, Any] = {name: value for name, value in more.items() if not getattr(given, name)}  # Any: fields
    return replace(given, **missing) if missing else given


_FIELDS: dict[str, tuple[str, type]] = {
    name.replace("password", "pass"): (name, type(getattr(ConnectOptions(), name)))
    for name in ConnectOptions.__dataclass_fields__
}


def _no_constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not JSON")


def _pairs(text: bytes) -> list[tuple[str, object]] | None:
    """The object's members in order, duplicates included; None for ``null``."""
    try:
        value = json.loads(
            text.decode("utf-8", "replace"), object_pairs_hook=lambda pairs: pairs, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise BadJson(str(error)) from error
    if value is None:
        return None
    # An object has become a list of pairs; an array a list of anything else, told apart by its first character.
    if not isinstance(value, list) or not text.lstrip(b" \t\r\n").startswith(b"{"):
        raise BadJson("not an object")
    return value


def parse_connect(argument: bytes) -> ConnectOptions:
    """The options in the JSON of CONNECT. Raises ``BadJson``.

    As with nats-server, names match in any case, the last of several wins, ``null`` changes nothing,
    unknown fields are ignored and types are strict.
    """
    options = ConnectOptions()
    for key, value in _pairs(argument) or ():
        known = _FIELDS.get(key) or _FIELDS.get(key.lower())
        if known is None or value is None:
            continue
        name, kind = known
        if type(value) is not kind:
            raise BadJson(f"{key} must be {kind.__name__}")
        if isinstance(value, str):
            value = value.encode("utf-8", "replace").decode()
        setattr(options, name, value)
    return options


def check_json_object(argument: bytes) -> None:
    """Raise ``BadJson`` unless this is a JSON object (or null): what is asked of an INFO sent by a client."""
    _pairs(argument)
