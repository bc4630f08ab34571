"""Operator mode: accounts that an operator signed, whose users bring their own claims. The resolver is memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from errno import ENOENT
from pathlib import Path
from typing import TYPE_CHECKING, Final

from server.config import nkey
from server.config.tree import Entry
from server.config.values import Fields, Mistake, Reader, Table, as_map, as_text, refusal

if TYPE_CHECKING:
    from server.config.accounts import AccountOptions, AccountsOptions
    from server.config.claims import AccountClaims


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """Whom to believe, and what they say."""

    trusted_keys: tuple[str, ...] = ()
    """Keys that may sign accounts."""
    system_account: str = ""
    """The one that the operator's claims name."""
    accounts: Mapping[str, AccountClaims] = field(default_factory=dict)
    """By public key: those that a trusted key signed."""
    is_by_claims: bool = False
    """Operators are given by their claims, not as bare keys."""
    has_resolver: bool = False

    @property
    def is_on(self) -> bool:
        """Whether clients must bring claims."""
        return bool(self.trusted_keys)


def _each(entry: Entry) -> list[Entry]:
    return entry.value if isinstance(entry.value, list) else [entry]


def _operator(_reader: Reader, name: str, entry: Entry) -> Fields:
    from server.config.jwt import BadToken, decode, strings, value  # only where it is wanted: start-up time

    keys: list[str] = []
    strict: list[str] = []
    system = ""
    for item in _each(entry):
        text = as_text(name, item)
        try:
            if "." not in text or not text.startswith("eyJ"):
                text = _claims_in(Path(text).read_text())
            token = decode(text, "operator")
            if token.issuer not in (token.subject, *strings(token.body, "signing_keys")):
                raise BadToken("the operator has not signed its own claims")
            if value(token.body, "assert_server_version", ""):
                raise BadToken(refusal("assert_server_version"))
            if token.expires_s or token.not_before_s:
                raise BadToken(refusal("an operator for a limited time"))
            signing = strings(token.body, "signing_keys")
            if value(token.body, "strict_signing_key_usage", False):
                keys += signing
                strict += signing
            else:
                keys += (token.subject, *signing)
            system = system or value(token.body, "system_account", "")
        except OSError as error:
            why = "no such file or directory" if error.errno == ENOENT else str(error.strerror).lower()
            raise Mistake(f"error parsing operator JWT: open {text}: {why}") from None
        except (UnicodeDecodeError, BadToken) as error:
            raise Mistake(f"error parsing operator JWT: {error}") from None
    if len(_each(entry)) > 1:
        system = ""  # of several operators none says it, as with nats-server
    return {"operator_claims": (tuple(keys), tuple(strict), system)}


def _claims_in(text: str) -> str:
    """The claims in a file: alone, or between lines of dashes."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    inner = [line for line in lines if not line.startswith("-")]
    return inner[0] if inner else ""


def _trusted_keys(_reader: Reader, name: str, entry: Entry) -> Fields:
    keys = tuple(as_text(name, item) for item in _each(entry))
    wrong = [key for key in keys if nkey.public_key(key, nkey.OPERATOR) is None]
    if wrong:
        raise Mistake(f'trust key "{wrong[0]}" required to be a valid public operator nkey')
    return {"trusted_keys": keys}


def _resolver(_reader: Reader, _name: str, entry: Entry) -> Fields:
    if isinstance(entry.value, str) and entry.value.upper() in ("MEM", "MEMORY"):
        return {"has_resolver": True}
    if isinstance(entry.value, str) and not entry.value.upper().startswith("URL"):
        wanted = 'MEM or  URL("url") or a map containing dir and type state=[FULL|CACHE])'
        raise Mistake(f"error parsing account resolver, should be {wanted}")
    kind = "URL" if isinstance(entry.value, str) else "full or cache"
    raise Mistake(f'"resolver" of type {kind} is not supported by this version of jetstore: use MEMORY')


def _preload(reader: Reader, name: str, entry: Entry) -> Fields:
    from server.config.claims import account_claims
    from server.config.jwt import BadToken

    found: dict[str, AccountClaims] = {}
    for key, item in as_map(name, entry).items():
        try:
            found[key] = account_claims(as_text(name, item), key)
        except (BadToken, Mistake) as error:
            reader.complain(item, f'preload account error for "{key}": {error}')
    return {"preloaded": found}


TOP_LEVEL: Final[Table] = {
    **dict.fromkeys(("operator", "operators"), _operator),
    **dict.fromkeys(("trusted", "trusted_keys"), _trusted_keys),
    "resolver": _resolver,
    "resolver_preload": _preload,
}


def with_operator(fields: Fields, warn: Callable[[str], None]) -> str:
    """Put what these keys gave together, in place; what is wrong with it, or "" if nothing is.

    ``warn`` is told of imports that are left out because their exporter does not allow them.
    """
    keys, strict, system = fields.pop("operator_claims", ((), (), ""))
    bare = fields.pop("trusted_keys", ())
    has_resolver = fields.pop("has_resolver", False)
    preloaded: dict[str, AccountClaims] = fields.pop("preloaded", {})
    if keys and bare:
        return "conflicting options for 'TrustedKeys' and 'TrustedOperators'"
    trusted = tuple(keys) or tuple(bare)
    if not trusted:
        return "resolver_preload needs an operator or trusted_keys" if preloaded else ""
    if not has_resolver:
        return "operators require an account resolver to be configured"
    if "accounts" in fields:
        return "operators do not allow Accounts to be configured directly"
    given = fields.get("authorization")
    if (given is not None and given.is_required) or fields.get("no_auth_user"):
        return "operators do not allow users to be configured directly"
    from server.config.accounts import AccountsOptions, sharing_problem

    believed = {key: claims for key, claims in preloaded.items() if claims.issuer in trusted}
    believed |= {key: _strict(claims) for key, claims in believed.items() if claims.issuer in strict}
    given = AccountsOptions(tuple(claims.options for claims in believed.values()))
    fields["accounts"] = AccountsOptions(tuple(_allowed(given, each, warn) for each in given.accounts))
    fields["operator"] = OperatorOptions(trusted, system, believed, bool(keys), has_resolver)
    if not fields.get("system_account") and system in believed:
        fields["system_account"] = system
    return sharing_problem(fields["accounts"])


def _strict(claims: AccountClaims) -> AccountClaims:
    """The account's own key signs nothing but by its signing keys."""
    exports = []
    for each in claims.options.exports:
        wanted = each.activators
        if wanted is not None:
            keys = tuple(key for key in wanted.keys if key != claims.options.name)
            each = replace(each, activators=replace(wanted, keys=keys))
        exports.append(each)
    return replace(claims, options=replace(claims.options, exports=tuple(exports)), is_strict=True)


def _allowed(given: AccountsOptions, account: AccountOptions, warn: Callable[[str], None]) -> AccountOptions:
    """An account without the imports that nobody offers to it."""
    from server.config.accounts import export_for

    kept = []
    for each in account.imports:
        kind = "service" if each.is_service else "stream"
        if each.account not in given.by_name:
            warn(f"Can't locate account [{each.account}] for import of [{each.subject}] {kind} by [{account.name}]")
        elif export_for(given, account.name, each) is None:
            warn(f"Error adding {kind} import {each.subject} to account [{account.name}]: {kind} import not authorized")
        else:
            kept.append(each)
    return replace(account, imports=tuple(kept), is_complete=len(kept) == len(account.imports))
