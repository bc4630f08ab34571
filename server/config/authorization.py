"""The ``authorization`` block: who may connect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.config.tree import Entry, kind_of
from server.config.values import (
    SECOND,
    Fields,
    Mistake,
    Reader,
    ReadValue,
    Table,
    as_map,
    as_text,
    refusal,
    seconds,
    text,
)


@dataclass(frozen=True, slots=True)
class User:
    """One entry of ``authorization.users``."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class AuthorizationOptions:
    """Who may connect. All empty: everybody."""

    user: str = ""
    password: str = ""
    token: str = ""
    users: tuple[User, ...] = ()
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


def _user(reader: Reader, entry: Entry) -> User | None:
    if not isinstance(entry.value, dict):
        reader.complain(entry, f"Expected user entry to be a map, got {kind_of(entry.value)}")
        return None
    fields = reader.block(entry.value, CREDENTIALS, _USER_REFUSED)
    if "user" not in fields:
        reader.complain(entry, "User entry requires a user")
        return None
    return User(fields["user"], fields.get("password", ""))


def _users(reader: Reader, _name: str, entry: Entry) -> Fields:
    if not isinstance(entry.value, list):
        raise Mistake(f"Expected users field to be an array, got {kind_of(entry.value)}")
    users = [user for item in entry.value if (user := _user(reader, item)) is not None]
    seen: set[str] = set()
    for user in users:
        if user.user in seen:
            raise Mistake(f'Duplicate user "{user.user}" detected')
        seen.add(user.user)
    return {"users": tuple(users)}


def _authorization(reader: Reader, name: str, entry: Entry) -> Fields:
    fields = reader.block(as_map(name, entry), _AUTHORIZATION, REFUSED)
    has_user = "user" in fields or "password" in fields
    if has_user and "token" in fields:
        raise Mistake("Cannot have a user/pass and token")
    if has_user and "users" in fields:
        raise Mistake("Can not have a single user/pass and a users array")
    if "token" in fields and "users" in fields:
        raise Mistake("Can not have a token and a users array")
    return {"authorization": AuthorizationOptions(**fields)}


CREDENTIALS: Final[Table] = {
    "user": text("user"),
    "username": text("user"),
    "pass": secret("password"),
    "password": secret("password"),
}
_AUTHORIZATION: Final[Table] = {
    **CREDENTIALS,
    "token": secret("token"),
    "timeout": seconds("timeout_ns"),
    "users": _users,
}
REFUSED: Final = frozenset(
    (
        *("default_permissions", "default_permission", "permissions", "auth_callout", "auth_hook"),
        "proxy_required",
    )
)
_USER_REFUSED: Final = frozenset(
    (
        *("nkey", "permissions", "permission", "authorization", "allowed_connection_types"),
        *("connection_types", "clients", "proxy_required"),
    )
)
TOP_LEVEL: Final[Table] = {"authorization": _authorization}
