"""What a request to the system account asks for: its JSON, with Go's words for what does not fit, as parameters."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import urlencode

from server.monitor.query import Query

JsonDict = dict[str, Any]  # Any: JSON values
_FILTER: Final = {
    **dict.fromkeys(("server_name", "cluster", "host", "domain"), "string"),
    "exact_match": "bool",
    "tags": "[]string",
}
"""Options of every request: which servers are to answer."""
_PAGE: Final = {"offset": "int", "limit": "int"}
_OF_KIND: Final[dict[str, dict[str, str]]] = {
    "CONNZ": {
        **dict.fromkeys(("user", "acc", "filter_subject", "mqtt_client"), "string"),
        **dict.fromkeys(("auth", "subscriptions", "subscriptions_detail"), "bool"),
        **_PAGE,
        "cid": "uint64",
        "sort": "server.SortOpt",
        "state": "server.ConnState",
    },
    "SUBSZ": {"account": "string", "test": "string", "subscriptions": "bool", **_PAGE},
    "JSZ": {
        "account": "string",
        **dict.fromkeys(("accounts", "streams", "consumer", "direct_consumer", "config", "raft"), "bool"),
        **dict.fromkeys(("leader_only", "stream_leader_only"), "bool"),
        **_PAGE,
    },
    "HEALTHZ": {
        **dict.fromkeys(("account", "stream", "consumer"), "string"),
        **dict.fromkeys(("js-enabled-only", "js-enabled", "js-server-only", "js-meta-only", "details"), "bool"),
    },
    "ROUTEZ": {"subscriptions": "bool", "subscriptions_detail": "bool"},
    "LEAFZ": {"subscriptions": "bool", "account": "string"},
    "ACCOUNTZ": {"account": "string"},
    "STATZ": {"accounts": "[]string", "include_unused": "bool"},
}
"""The other options of a kind, with their Go types; what is not here is passed over."""
_GO_KINDS: Final = {"string": str, "server.SortOpt": str, "bool": bool, "[]string": list}
"""Of the others: numbers."""
_PARAMETERS: Final = {
    "account": "acc",
    "subscriptions": "subs",
    "consumer": "consumers",
    "direct_consumer": "direct-consumers",
    "leader_only": "leader-only",
    "stream_leader_only": "stream-leader-only",
}
"""Options of requests that the pages call otherwise."""
_ACCOUNT_BY_NAME: Final = frozenset({"HEALTHZ"})
_STATES: Final = {0: "open", 1: "closed", 2: "all"}


class BadOptions(ValueError):
    """A body that cannot be understood: 400 with this text."""


def read_options(kind: str, body: bytes) -> JsonDict:
    """The options of a request, names in lower case; an empty body has none. Raises BadOptions."""
    try:
        options = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise BadOptions(str(error)) from None
    struct = f"{kind.capitalize()}EventOptions"
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise BadOptions(f"json: cannot unmarshal {_kind(options)} into Go value of type server.{struct}")
    types = _FILTER | _OF_KIND.get(kind, {})
    given = {name.lower(): value for name, value in options.items() if value is not None}
    options = {name: value for name, value in given.items() if name in types}
    for name, value in options.items():
        if not _fits(value, types[name]):
            raise BadOptions(
                f"json: cannot unmarshal {_kind(value)} into Go struct field {struct}.{name} of type {types[name]}"
            )
    return options


def _fits(value: object, wanted: str) -> bool:
    kind = _GO_KINDS.get(wanted)
    if kind is not None:
        return isinstance(value, kind)
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: object) -> str:
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case list():
            return "array"
    return "object" if isinstance(value, dict) else "number"


def query_of(kind: str, options: JsonDict) -> Query:
    """The options as parameters of a page."""
    found: dict[str, str] = {}
    for option, value in options.items():
        key = option if kind in _ACCOUNT_BY_NAME else _PARAMETERS.get(option, option)
        if option == "subscriptions_detail":
            if value is True:
                found["subs"] = "detail"
        elif option == "state" and isinstance(value, int):
            found["state"] = _STATES.get(value, str(value))
        elif isinstance(value, bool):
            found.setdefault(key, "1" if value else "0")
        elif isinstance(value, str | int):
            found[key] = str(value)
    return Query(urlencode(found))
