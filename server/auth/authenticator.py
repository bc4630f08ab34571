"""Checks the credentials of a CONNECT: nothing, one token, or users with passwords."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hmac import compare_digest

from server.auth.permissions import Permissions
from server.protocol.connect import ConnectOptions

_BCRYPT = re.compile(r"\$2[abxy]\$\d\d\$")


class AuthRefused(ValueError):
    """A configured credential of a kind this build cannot check."""


@dataclass(frozen=True, slots=True)
class User:
    """Who a client turned out to be."""

    name: str = ""
    """Empty: anonymous."""
    account: str = "$G"
    permissions: Permissions | None = None
    shown_name: str = ""
    """What monitoring shows; tokens are never shown."""


ANONYMOUS = User()
_TOKEN_USER = User(shown_name="[REDACTED]")


@dataclass(frozen=True, slots=True)
class PasswordUser:
    """A configured user."""

    user: User
    password: str


class Authenticator:
    """Decides who a CONNECT comes from. Immutable; a reload makes a new one."""

    def __init__(self, token: str = "", users: Iterable[PasswordUser] = (), no_auth_user: str = "") -> None:
        """Nothing given: everybody is let in. Raises ``AuthRefused`` for bcrypt hashes."""
        self._token = token
        self._users = {entry.user.name: entry for entry in users}
        for secret in (token, *(entry.password for entry in self._users.values())):
            if _BCRYPT.match(secret):
                raise AuthRefused("bcrypt passwords and tokens are not supported by this version")
        self._fallback: User | None = None
        if no_auth_user:
            if no_auth_user not in self._users:
                raise AuthRefused(f'no_auth_user: "{no_auth_user}" not present as user')
            self._fallback = self._users[no_auth_user].user

    @property
    def is_required(self) -> bool:
        """Whether INFO says ``auth_required`` and a CONNECT must come in time."""
        return bool(self._token or self._users) and self._fallback is None

    @property
    def fallback(self) -> User | None:
        """Who a client without CONNECT is; None where CONNECT is required."""
        return None if self.is_required else self._fallback or ANONYMOUS

    def authenticate(self, connect: ConnectOptions) -> User | None:
        """The user these credentials belong to, or None."""
        if not self._token and not self._users:
            return ANONYMOUS
        if self._token:
            return _TOKEN_USER if _same(connect.auth_token, self._token) else None
        if self._fallback is not None and not (connect.user or connect.password or connect.auth_token):
            return self._fallback
        entry = self._users.get(connect.user)
        # A user that does not exist takes as long to refuse as a wrong password.
        is_right = _same(connect.password, entry.password if entry else connect.password + "x")
        return entry.user if entry is not None and is_right else None


def _same(given: str, expected: str) -> bool:
    return compare_digest(given.encode("utf-8", "replace"), expected.encode("utf-8", "replace"))
