"""The ``authorization`` block and ``users`` lists: who may connect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from server.config import nkey
from server.config.permissions import PermissionOptions, permissions
from server.config.tree import Entry, kind_of
from server.config.values import (
    SECOND,
    Fields,
    Mistake,
    Reader,
    ReadValue,
    Table,
    as_list,
    as_map,
    as_text,
    refusal,
    seconds,
    text,
)

CONNECTION_TYPES: Final = ("STANDARD", "WEBSOCKET", "LEAFNODE", "LEAFNODE_WS", "MQTT", "MQTT_WS", "IN_PROCESS")
GLOBAL_ACCOUNT: Final = "$G"


@dataclass(frozen=True, slots=True)
class User:
    """One entry of a ``users`` list: a name and a password, or a public key."""

    user: str = ""
    password: str = ""
    """Plain or a bcrypt hash."""
    nkey: str = ""
    permissions: PermissionOptions | None = None
    """None: not given."""
    connection_types: tuple[str, ...] = ()
    """Empty: all."""
    account: str = GLOBAL_ACCOUNT

    @property
    def key(self) -> str:
        """What tells it from others."""
        return self.nkey or self.user


@dataclass(frozen=True, slots=True)
class AuthorizationOptions:
    """Who may connect. All empty: everybody."""

    user: str = ""
    password: str = ""
    token: str = ""
    users: tuple[User, ...] = ()
    permissions: PermissionOptions | None = None
    """Of users without their own; where they are applied they are copied there."""
    timeout_ns: int = 2 * SECOND
    """How long a client may take to present its credentials."""

    @property
    def is_required(self) -> bool:
        """Whether clients must authenticate."""
        return bool(self.user or self.password or self.token or self.users)


def is_bcrypt(secret: str) -> bool:
    """Whether a password or token is given as a bcrypt hash."""
    return secret.startswith(("$2a$", "$2b$", "$2x$", "$2y$"))


def secret(option: str) -> ReadValue:
    """A password or token in plain text."""

    def read(_reader: Reader, name: str, entry: Entry) -> Fields:
        value = as_text(name, entry)
        if is_bcrypt(value):
            raise Mistake(refusal(f"{name} as a bcrypt hash"))
        return {option: value}

    return read


def _nkey(_reader: Reader, name: str, entry: Entry) -> Fields:
    value = as_text(name, entry)
    if nkey.public_key(value, nkey.USER) is None:
        raise Mistake("Not a valid public nkey for a user")
    return {"nkey": value}


def _connection_types(reader: Reader, name: str, entry: Entry) -> Fields:
    given = []
    for item in as_list(name, entry):
        if isinstance(item.value, str):
            given.append(item.value.upper())
        else:
            reader.complain(item, f"error parsing allowed connection types: unsupported type {kind_of(item.value)}")
    wrong = [f'"{each}"' for each in given if each not in CONNECTION_TYPES]
    if wrong:
        raise Mistake(f"invalid connection types [{' '.join(wrong)}]")
    return {"connection_types": tuple(given)}


def _user(reader: Reader, entry: Entry) -> User | None:
    if not isinstance(entry.value, dict):
        reader.complain(entry, f"Expected user entry to be a map/struct, got {entry.value}")
        return None
    found = len(reader.problems)
    fields = reader.block(entry.value, _USER, _USER_REFUSED)
    if len(reader.problems) > found:
        return None
    if not fields.get("nkey") and not fields.get("user"):
        reader.complain(entry, "User entry requires a user")
        return None
    if "nkey" in fields and ("user" in fields or "password" in fields):
        reader.complain(entry, "Nkey users do not take usernames or passwords")
        return None
    return User(**fields)


def read_users(reader: Reader, entry: Entry, account: str = GLOBAL_ACCOUNT) -> tuple[User, ...]:
    """The users of an array; what is wrong with single ones is collected."""
    if not isinstance(entry.value, list):
        raise Mistake(f"Expected users field to be an array, got {kind_of(entry.value)}")
    users = [user for item in entry.value if (user := _user(reader, item)) is not None]
    duplicate = duplicate_user(users)
    if duplicate:
        raise Mistake(f'Duplicate user "{duplicate}" detected')
    return tuple(replace(user, account=account) for user in users)


def duplicate_user(users: Iterable[User]) -> str:
    """A name or key that occurs twice; "" if none does."""
    seen: set[str] = set()
    for user in users:
        if user.key in seen:
            return user.key
        seen.add(user.key)
    return ""


def with_default(users: Sequence[User], default: PermissionOptions | None) -> tuple[User, ...]:
    """The users, those without permissions with the default ones."""
    return tuple(replace(user, permissions=user.permissions or default) for user in users)


def _authorization(reader: Reader, name: str, entry: Entry) -> Fields:
    fields = reader.block(as_map(name, entry), _AUTHORIZATION, REFUSED)
    has_user = "user" in fields or "password" in fields
    if has_user and "token" in fields:
        raise Mistake("Cannot have a user/pass and token")
    if has_user and "users" in fields:
        raise Mistake("Can not have a single user/pass and a users array")
    if "token" in fields and "users" in fields:
        raise Mistake("Can not have a token and a users array")
    fields["users"] = with_default(fields.get("users", ()), fields.get("permissions"))
    return {"authorization": AuthorizationOptions(**fields)}


CREDENTIALS: Final[Table] = {
    "user": text("user"),
    "username": text("user"),
    "pass": secret("password"),
    "password": secret("password"),
}
"""Of other blocks: no hashes."""
_CREDENTIALS: Final[Table] = {
    **dict.fromkeys(("user", "username"), text("user")),
    **dict.fromkeys(("pass", "password"), text("password")),
}
_USER: Final[Table] = {
    **_CREDENTIALS,
    "nkey": _nkey,
    **dict.fromkeys(("permissions", "permission", "authorization"), permissions("permissions")),
    **dict.fromkeys(("allowed_connection_types", "connection_types", "clients"), _connection_types),
}
_USER_REFUSED: Final = frozenset({"proxy_required"})
_AUTHORIZATION: Final[Table] = {
    **_CREDENTIALS,
    "token": text("token"),
    "timeout": seconds("timeout_ns"),
    "users": lambda reader, _name, entry: {"users": read_users(reader, entry)},
    **dict.fromkeys(("default_permissions", "default_permission", "permissions"), permissions("permissions")),
}
REFUSED: Final = frozenset(("auth_callout", "auth_hook", "proxy_required"))
TOP_LEVEL: Final[Table] = {"authorization": _authorization, "no_auth_user": text("no_auth_user")}
