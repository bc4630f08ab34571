"""The ``permissions`` of a user: what may be published, subscribed and answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from jetstore.model.subjects import is_valid_subject
from server.config.tree import Entry, kind_of
from server.config.values import Fields, Mistake, Reader, ReadValue, Table, as_duration_ns, as_integer

ANSWERS_MAX: Final = 1
ANSWERS_EXPIRE_NS: Final = 120 * 1_000_000_000
_UNKNOWN: Final = 'Unknown field "{key}" parsing permissions'


@dataclass(frozen=True, slots=True)
class SubjectRules:
    """Subjects, each maybe with a queue after a blank. No allow entries: everything that is not denied."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PermissionOptions:
    """One user's permissions."""

    publish: SubjectRules = SubjectRules()
    subscribe: SubjectRules = SubjectRules()
    answers: bool = False
    """The reply subject of a delivered message may be published to (``allow_responses``)."""
    answers_max: int = ANSWERS_MAX
    """Negative: any number."""
    answers_expire_ns: int = ANSWERS_EXPIRE_NS
    """Negative: for ever."""


def _subject(text: str, *, with_queue: bool) -> str:
    parts = text.split()
    if not 1 <= len(parts) <= (2 if with_queue else 1) or not is_valid_subject(parts[0]):
        raise Mistake(f'subject "{text}" is not a valid subject')
    return text


def _list(reader: Reader, entry: Entry, *, with_queue: bool) -> tuple[str, ...]:
    items = entry.value if isinstance(entry.value, list) else [entry]
    found = []
    for item in items:
        if not isinstance(item.value, str):
            reader.complain(item, f"Subject in permissions array cannot be cast to string, got {kind_of(item.value)}")
            continue
        try:
            found.append(_subject(item.value, with_queue=with_queue))
        except Mistake as mistake:
            reader.complain(item, str(mistake))
    return tuple(found)


def _rules(option: str, *, with_queue: bool) -> ReadValue:
    def allow_or_deny(name: str) -> ReadValue:
        return lambda reader, _key, entry: {name: _list(reader, entry, with_queue=with_queue)}

    table = {name: allow_or_deny(name) for name in ("allow", "deny")}

    def read(reader: Reader, _name: str, entry: Entry) -> Fields:
        if isinstance(entry.value, dict):
            unknown = "Unknown field name \"{key}\" parsing subject permissions, only 'allow' or 'deny' are permitted"
            return {option: SubjectRules(**reader.block(entry.value, table, unknown=unknown))}
        return {option: SubjectRules(allow=_list(reader, entry, with_queue=with_queue))}

    return read


def _answers_max(_reader: Reader, name: str, entry: Entry) -> Fields:
    return {"answers_max": as_integer(name, entry) or ANSWERS_MAX}


def _answers_expire(reader: Reader, name: str, entry: Entry) -> Fields:
    return {"answers_expire_ns": as_duration_ns(reader, name, entry) or ANSWERS_EXPIRE_NS}


_ANSWERS: Final[Table] = {
    "max": _answers_max,
    "max_msgs": _answers_max,
    "max_messages": _answers_max,
    "max_responses": _answers_max,
    "expires": _answers_expire,
    "expiration": _answers_expire,
    "ttl": _answers_expire,
}


def _answers(reader: Reader, _name: str, entry: Entry) -> Fields:
    if isinstance(entry.value, bool):
        return {"answers": entry.value}
    if not isinstance(entry.value, dict):
        raise Mistake("error parsing response permissions, expected a boolean or a map")
    return {"answers": True, **reader.block(entry.value, _ANSWERS, unknown=_UNKNOWN)}


_publish: Final = _rules("publish", with_queue=False)
_subscribe: Final = _rules("subscribe", with_queue=True)
_PERMISSIONS: Final[Table] = {
    **dict.fromkeys(("publish", "pub", "import"), _publish),
    **dict.fromkeys(("subscribe", "sub", "export"), _subscribe),
    **dict.fromkeys(
        ("allow_responses", "publish_allow_responses", "allow_response", "publish_allow_response"), _answers
    ),
}


def permissions(option: str) -> ReadValue:
    """A permission block, as ``PermissionOptions``."""

    def read(reader: Reader, _name: str, entry: Entry) -> Fields:
        if not isinstance(entry.value, dict):
            raise Mistake(f"Expected permissions to be a map/struct, got {entry.value}")
        return {option: PermissionOptions(**reader.block(entry.value, _PERMISSIONS, unknown=_UNKNOWN))}

    return read
