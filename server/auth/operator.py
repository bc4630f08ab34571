"""Users who bring claims that one of an operator's accounts signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

from server.auth import secrets
from server.auth.authenticator import STANDARD, Authenticator, SlowCheck, User, permissions_of
from server.auth.templates import filled
from server.auth.times import allowed_until_s
from server.config.claims import AccountClaims, UserRules, user_rules
from server.config.jwt import BadToken, Token, decode, strings
from server.config.operator import OperatorOptions
from server.protocol.connect import ConnectOptions


class OperatorAuthenticator(Authenticator):
    """Lets in who shows valid claims and, unless they are bearers', signs the nonce with the key they are about."""

    def __init__(self, options: OperatorOptions) -> None:
        super().__init__()
        self._options = options
        self._is_open = False

    @property
    def needs_nonce(self) -> bool:
        """Whether INFO must carry something to sign."""
        return True

    def authenticate(
        self,
        connect: ConnectOptions,
        nonce: str = "",
        connection_type: str = STANDARD,
        names: Sequence[str] = (),
        host: str = "",
        now_ns: int = 0,
    ) -> User | SlowCheck | None:
        """The user that the claims are about, or None."""
        if not connect.jwt:
            return None
        try:
            token = decode(connect.jwt, "user")
            return self._user(token, connect, nonce, connection_type, host, now_ns / 1e9)
        except BadToken:
            return None

    def _user(
        self, token: Token, connect: ConnectOptions, nonce: str, connection_type: str, host: str, now_s: float
    ) -> User | None:
        name = token.body.get("issuer_account") or token.issuer
        account = self._options.accounts.get(name) if isinstance(name, str) else None
        if account is None or not token.is_valid_at(now_s) or 0 < account.expires_s <= now_s:
            return None
        rules = _rules_of(token, account, name)
        if rules is None or account.is_revoked(token.subject, token.issued_s):
            return None
        if rules.is_bearer:
            if account.refuses_bearers:
                return None
        elif not secrets.is_signed(token.subject, connect.sig, nonce):
            return None
        if rules.networks and not _is_from(host, rules.networks):
            return None
        until_s = token.expires_s
        if rules.hours:
            end_s = allowed_until_s(rules.hours, rules.location, now_s)
            if not end_s:
                return None
            until_s = min(end_s, until_s or end_s)
        user = User(
            name=token.subject,
            account=name,
            permissions=permissions_of(rules.permissions or account.default_permissions),
            connection_types=rules.connection_types,
            max_subscriptions=rules.max_subscriptions,
            max_payload_bytes=rules.max_payload_bytes,
            user_expires_s=until_s,
            account_expires_s=account.expires_s,
            claims={"jwt": connect.jwt, "issuer_key": token.issuer, **_labels(token)},
        )
        return user if user.may_connect_by(connection_type) else None


def _rules_of(token: Token, account: AccountClaims, name: str) -> UserRules | None:
    """The user's rules, or those of the key that signed it; None: that key may not, or may not say more."""
    own = user_rules(token)
    if token.issuer == name:
        return None if account.is_strict else own
    if token.issuer not in account.signing_keys:
        return None
    scope = account.signing_keys[token.issuer]
    if scope is None:
        return own
    says_more = own.permissions or own.networks or own.connection_types or own.is_bearer or own.hours or own.location
    if says_more or max(own.max_subscriptions, own.max_payload_bytes) > 0:
        return None
    return replace(scope, permissions=filled(scope.permissions, token, account))


def _labels(token: Token) -> dict[str, object]:
    tags = list(strings(token.body, "tags"))
    return {name: given for name, given in (("name_tag", token.name), ("tags", tags)) if given}


def _is_from(host: str, networks: Sequence[str]) -> bool:
    try:
        address = ip_address(host)
        return any(address in ip_network(network, strict=False) for network in networks)
    except ValueError:
        return False
