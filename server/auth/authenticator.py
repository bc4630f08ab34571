"""Checks the credentials of a CONNECT: nothing, a token, users with passwords, users with keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

from server.auth import secrets
from server.auth.permissions import Permissions, ResponseRule
from server.config.authorization import AuthorizationOptions, is_bcrypt
from server.config.authorization import User as UserOptions
from server.config.permissions import PermissionOptions
from server.protocol.connect import ConnectOptions

STANDARD = "STANDARD"
"""Connection type of a plain TCP or TLS client."""
WEBSOCKET = "WEBSOCKET"


class AuthRefused(ValueError):
    """Configured users that do not make sense together."""


@dataclass(frozen=True, slots=True)
class User:
    """Who a client turned out to be."""

    name: str = ""
    """Empty: anonymous."""
    account: str = "$G"
    permissions: Permissions | None = None
    shown_name: str = ""
    """What monitoring shows; tokens are never shown."""
    connection_types: tuple[str, ...] = ()
    """How it may connect; empty: in any way."""
    max_subscriptions: int = -1
    """-1 = no limit of its own."""
    max_payload_bytes: int = -1
    user_expires_s: int = 0
    """When its claims and those of its account end, as seconds of the epoch; 0 = never."""
    account_expires_s: int = 0
    claims: Mapping[str, Any] | None = None  # Any: JSON
    """What of its claims services learn that may know all about it."""

    def may_connect_by(self, connection_type: str) -> bool:
        """Whether this kind of connection is allowed to the user."""
        return not self.connection_types or connection_type in self.connection_types


ANONYMOUS = User()
_TOKEN_USER = User(shown_name="[REDACTED]")


@dataclass(frozen=True, slots=True)
class PasswordUser:
    """A configured user with a password, plain or a bcrypt hash."""

    user: User
    password: str


@dataclass(frozen=True, slots=True)
class SlowCheck:
    """A bcrypt hash to be compared, which takes a core for milliseconds to seconds: not on the event loop."""

    user: User
    hashed: str
    given: str

    def run(self) -> User | None:
        """Who it is, or None. Takes long; may run in any thread."""
        return self.user if secrets.is_bcrypt_of(self.hashed, self.given) else None


class Authenticator:
    """Decides who a CONNECT comes from. Immutable; a reload makes a new one."""

    def __init__(
        self,
        token: str = "",
        users: Iterable[PasswordUser] = (),
        no_auth_user: str = "",
        nkeys: Iterable[User] = (),
        fallback: User | None = None,
        *,
        maps_names: bool = False,
    ) -> None:
        """Nothing given: everybody is let in. ``nkeys``: users whose name is their public key.

        ``fallback`` is who clients without credentials become besides (``no_auth_user`` names one of the users).
        ``maps_names``: clients are the users that their certificates name; passwords are not asked for.
        """
        self._maps_names = maps_names
        self._token = token
        self._users = {entry.user.name: entry for entry in users}
        self._nkeys = {user.name: user for user in nkeys}
        self._fallback = fallback
        self._has_no_auth_user = bool(no_auth_user)
        if no_auth_user:
            if no_auth_user not in self._users:
                raise AuthRefused(f'no_auth_user: "{no_auth_user}" not present as user')
            self._fallback = self._users[no_auth_user].user
        self._is_open = not (token or self._users or self._nkeys)

    @property
    def is_required(self) -> bool:
        """Whether a CONNECT must come in time, and INFO says ``auth_required``."""
        return not self._is_open and self._fallback is None

    @property
    def is_shown(self) -> bool:
        """Whether INFO says ``auth_required``: also where clients without credentials are let in beside others."""
        return not self._is_open and not self._has_no_auth_user

    @property
    def is_told(self) -> bool:
        """Whether the monitoring pages say ``auth_required``: there are users or a token."""
        return not self._is_open

    @property
    def needs_nonce(self) -> bool:
        """Whether INFO must carry something to sign."""
        return bool(self._nkeys)

    @property
    def fallback(self) -> User | None:
        """Who a client without CONNECT is; None where CONNECT is required."""
        return None if self.is_required else self._fallback or ANONYMOUS

    def knows(self, connect: ConnectOptions) -> bool:
        """Whether there still is a user with the name or key that a client gave; one who gave none is not asked."""
        if self._maps_names or not (self._users or self._nkeys):
            return True
        if connect.nkey:
            return connect.nkey in self._nkeys
        return not connect.user or connect.user in self._users

    def authenticate(
        self,
        connect: ConnectOptions,
        nonce: str = "",
        connection_type: str = STANDARD,
        names: Sequence[str] = (),
        host: str = "",
        now_ns: int = 0,
    ) -> User | SlowCheck | None:
        """The user these credentials belong to, or None; or what remains to be compared.

        ``names``: of the client's certificate, which has been verified; they only count where they are mapped.
        ``host``: the client's address; it and the wall time count for users with claims.
        """
        found = self._find(connect, nonce, names)
        user = found.user if isinstance(found, SlowCheck) else found
        return found if user is not None and user.may_connect_by(connection_type) else None

    def _find(self, connect: ConnectOptions, nonce: str, names: Sequence[str]) -> User | SlowCheck | None:
        if self._is_open:
            return self._fallback or ANONYMOUS
        if self._token:
            return _compared(_TOKEN_USER, self._token, connect.auth_token)
        if self._nkeys and connect.nkey:
            user = self._nkeys.get(connect.nkey)
            return user if user is not None and secrets.is_signed(connect.nkey, connect.sig, nonce) else None
        if self._maps_names and self._users:
            return next((self._users[name].user for name in names if name in self._users), None)
        if self._fallback is not None and not (connect.user or connect.password or connect.auth_token):
            return self._fallback
        entry = self._users.get(connect.user)
        if entry is None:
            # A user that does not exist takes as long to refuse as a wrong plain password.
            _same(connect.password, connect.password + "x")
            return None
        return _compared(entry.user, entry.password, connect.password)


def _compared(user: User, expected: str, given: str) -> User | SlowCheck | None:
    if is_bcrypt(expected):
        return SlowCheck(user, expected, given)
    return user if _same(given, expected) else None


def _same(given: str, expected: str) -> bool:
    return compare_digest(given.encode("utf-8", "replace"), expected.encode("utf-8", "replace"))


def permissions_of(options: PermissionOptions | None) -> Permissions | None:
    """Permissions as configured; None where nothing is restricted."""
    if options is None or options == PermissionOptions():
        return None
    publish, subscribe = options.publish, options.subscribe
    return Permissions(
        publish.allow or None,
        publish.deny,
        subscribe.allow or None,
        subscribe.deny,
        ResponseRule(options.answers_max, options.answers_expire_ns / 1e9) if options.answers else None,
    )


def configured(
    given: AuthorizationOptions,
    users: Sequence[UserOptions],
    no_auth_user: str = "",
    fallback: User | None = None,
    *,
    maps_names: bool = False,
) -> Authenticator:
    """The authenticator of a configuration; ``users`` are those of the block and of all accounts."""

    def user_of(entry: UserOptions) -> User:
        return User(
            name=entry.key,
            account=entry.account,
            permissions=permissions_of(entry.permissions),
            connection_types=entry.connection_types,
        )

    passwords = [PasswordUser(user_of(entry), entry.password) for entry in users if not entry.nkey]
    if given.user or given.password:
        single = UserOptions(given.user, given.password, permissions=given.permissions)
        passwords.append(PasswordUser(user_of(single), given.password))
    nkeys = [user_of(entry) for entry in users if entry.nkey]
    return Authenticator(given.token, passwords, no_auth_user, nkeys, fallback, maps_names=maps_names)
