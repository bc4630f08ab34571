"""What the claims of accounts and users say, as the configuration's own types.

What is not supported is refused by name: an account is never less restricted than its claims say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import time
from typing import Any, Final

from jetstore.model.infos import AccountLimits
from jetstore.model.subjects import is_valid_literal, is_valid_subject
from server.config import nkey
from server.config.accounts import PERCENT_MAX, AccountOptions, Export, Import, MappingOptions, checked_mapping
from server.config.activations import activation, activators
from server.config.jwt import BadToken, Token, decode, strings, value
from server.config.latency import BAD_SAMPLING, BY_HEADERS, EVERY, LatencyOptions
from server.config.permissions import ANSWERS_EXPIRE_NS, ANSWERS_MAX, PermissionOptions, SubjectRules
from server.config.values import refusal

NO_LIMIT: Final = -1
EVERYBODY: Final = "*"
"""Key of a revocation that is about all users."""


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of each day; over midnight where the end is before the start."""

    start: time
    end: time


@dataclass(frozen=True, slots=True)
class UserRules:
    """What a user may do; of a scoped signing key: what all its users may do."""

    permissions: PermissionOptions | None = None
    max_subscriptions: int = NO_LIMIT
    max_payload_bytes: int = NO_LIMIT
    networks: tuple[str, ...] = ()
    """Where it may come from (CIDR); empty: from anywhere."""
    connection_types: tuple[str, ...] = ()
    is_bearer: bool = False
    """No signature of the nonce is asked for."""
    hours: tuple[Hours, ...] = ()
    """When it may be connected; empty: at any time."""
    location: str = ""
    """The time zone of the hours; "": the server's."""


@dataclass(frozen=True, slots=True)
class AccountClaims:
    """One account as its operator signed it. Times in seconds."""

    options: AccountOptions
    issuer: str = ""
    expires_s: int = 0
    """0: never."""
    signing_keys: Mapping[str, UserRules | None] = field(default_factory=dict)
    """Who else may sign its users; with rules: only with these."""
    revocations: Mapping[str, int] = field(default_factory=dict)
    """User → users issued until then are no longer let in."""
    default_permissions: PermissionOptions | None = None
    refuses_bearers: bool = False
    name_tag: str = ""
    tags: tuple[str, ...] = ()
    is_strict: bool = False
    """Its own key may not sign its users, signing keys must."""

    def is_revoked(self, user: str, issued_s: int) -> bool:
        """Whether a user of this age has been sent away."""
        return any(issued_s <= self.revocations.get(key, -1) for key in (user, EVERYBODY))


def account_claims(text: str, name: str) -> AccountClaims:
    """The claims of the account of this name. Raises ``BadToken``."""
    token = decode(text, "account")
    if token.subject != name:
        raise BadToken(f"the claims are those of {token.subject}")
    if token.not_before_s:
        raise BadToken(refusal("nbf of an account"))
    body = token.body
    for key in ("authorization", "cluster_traffic"):
        found = body.get(key)
        if any(found.values()) if isinstance(found, dict) else found:
            raise BadToken(refusal(key))
    limits = value(body, "limits", {})
    signing_keys = dict(_signing_key(each) for each in value(body, "signing_keys", []))
    exports = tuple(_export(each, name, tuple(signing_keys)) for each in _objects(body, "exports"))
    imports = tuple(_import(each, name) for each in _objects(body, "imports"))
    for what, count in (("exports", len(exports)), ("imports", len(imports))):
        if 0 <= value(limits, what, NO_LIMIT) < count:
            raise BadToken(f"the account contains more {what} than allowed by the operator")
    has_wildcards = any("*" in each.subject or each.subject.endswith(">") for each in exports)
    if has_wildcards and not value(limits, "wildcards", False):
        raise BadToken("the account is not allowed to export subjects with wildcards")
    revocations = value(body, "revocations", {})
    options = AccountOptions(
        name,
        mappings=_mappings(body),
        jetstream=_jetstream(limits),
        exports=exports,
        imports=imports,
        max_connections=_limit(limits, "conn"),
        max_subscriptions=_limit(limits, "subs"),
        max_payload_bytes=_limit(limits, "payload"),
        **_trace(body),
    )
    return AccountClaims(
        options,
        token.issuer,
        token.expires_s,
        signing_keys,
        {key: value(revocations, key, 0) for key in revocations},
        _permissions(value(body, "default_permissions", {})),
        value(limits, "disallow_bearer", False),
        token.name,
        strings(body, "tags"),
    )


def user_rules(token: Token) -> UserRules:
    """What the claims of a user say. Raises ``BadToken``."""
    return _rules(token.body, NO_LIMIT if token.version == 1 else 0)


def _rules(body: Mapping[str, Any], absent: int, *, has_templates: bool = False) -> UserRules:
    networks = body.get("src")
    given = tuple(networks.split(",")) if isinstance(networks, str) and networks else strings(body, "src")
    return UserRules(
        _permissions(body, has_templates=has_templates),
        _limit(body, "subs", absent),
        _limit(body, "payload", absent),
        tuple(each.strip() for each in given) if networks else (),
        tuple(each.upper() for each in strings(body, "allowed_connection_types")),
        value(body, "bearer_token", False),
        tuple(Hours(_time(each, "start"), _time(each, "end")) for each in _objects(body, "times")),
        value(body, "times_location", ""),
    )


def _time(body: Mapping[str, Any], name: str) -> time:
    text = value(body, name, "")
    parts = text.split(":")
    if len(parts) != 3 or not all(len(part) == 2 and part.isascii() and part.isdigit() for part in parts):
        raise BadToken(f'"{text}" is not a time of day')
    hour, minute, second = map(int, parts)
    try:
        return time(hour, minute, second)
    except ValueError:
        raise BadToken(f'"{text}" is not a time of day') from None


def _permissions(body: Mapping[str, Any], *, has_templates: bool = False) -> PermissionOptions | None:
    """None where nothing is restricted."""
    answers = value(body, "resp", {})
    pub = value(body, "pub", {})
    publish = _subject_rules(pub, with_queue=False, has_templates=has_templates)
    if publish.deny and pub.get("allow") == []:  # as with nats-server: an empty list is not the same as none
        publish = replace(publish, deny=(*publish.deny, ">"))
    found = PermissionOptions(
        publish=publish,
        subscribe=_subject_rules(value(body, "sub", {}), with_queue=True, has_templates=has_templates),
        answers="resp" in body and body["resp"] is not None,
        answers_max=value(answers, "max", 0) or ANSWERS_MAX,
        answers_expire_ns=value(answers, "ttl", 0) or ANSWERS_EXPIRE_NS,
    )
    return None if found == PermissionOptions() else found


def _subject_rules(body: Mapping[str, Any], *, with_queue: bool, has_templates: bool) -> SubjectRules:
    allow, deny = strings(body, "allow"), strings(body, "deny")
    for each in (*allow, *deny):
        if has_templates and "{{" in each:
            continue  # judged when it has become a subject
        parts = each.split()
        if not 1 <= len(parts) <= (2 if with_queue else 1) or not is_valid_subject(parts[0]):
            raise BadToken(f'"{each}" is not a valid subject')
    return SubjectRules(allow, deny)


def _limit(body: Mapping[str, Any], name: str, absent: int = 0) -> int:
    found: int = value(body, name, absent)
    return found if found >= 0 else NO_LIMIT


def _jetstream(limits: Mapping[str, Any]) -> AccountLimits | None:
    """None without JetStream: an account has it that has room. Where there are tiers, nothing else counts."""
    given = value(limits, "tiered_limits", {})
    tiers = {name: _tier(value(given, name, {})) for name in given}
    found = AccountLimits(0, 0, 0, 0, 0, 0, 0, tiers=tiers) if tiers else _tier(limits)
    has_room = any(each.max_memory or each.max_storage for each in (found, *tiers.values()))
    return found if has_room else None


def _tier(limits: Mapping[str, Any]) -> AccountLimits:
    return AccountLimits(
        max_memory=_limit(limits, "mem_storage"),
        max_storage=_limit(limits, "disk_storage"),
        max_streams=_limit(limits, "streams"),
        max_consumers=_limit(limits, "consumer"),
        max_ack_pending=_limit(limits, "max_ack_pending") or NO_LIMIT,
        memory_max_stream_bytes=_limit(limits, "mem_max_stream_bytes") or NO_LIMIT,
        storage_max_stream_bytes=_limit(limits, "disk_max_stream_bytes") or NO_LIMIT,
        max_bytes_required=value(limits, "max_bytes_required", False),
    )


def _objects(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = value(body, name, [])
    if not all(isinstance(each, dict) for each in found):
        raise BadToken(f"{name} is not a list of objects")
    return list(found)


def _mappings(body: Mapping[str, Any]) -> tuple[MappingOptions, ...]:
    given, found = value(body, "mappings", {}), []
    for source in given:
        if not is_valid_subject(source):
            raise BadToken(f'"{source}" is not a valid subject')
        destinations = _objects(given, source)
        for each in destinations:
            if each.get("cluster"):
                raise BadToken(refusal("cluster of a mapping"))
            if value(each, "weight", 0) < 0:
                raise BadToken(f'a weight of the mapping of "{source}" is negative')
        weighted = [(value(each, "subject", ""), value(each, "weight", 0) or 100) for each in destinations]
        if len(dict(weighted)) < len(weighted):
            raise BadToken(f'duplicate entry among the destinations of "{source}"')
        found.append(checked_mapping(source, weighted))
    return tuple(found)


def _subject(body: Mapping[str, Any], name: str) -> str:
    found: str = value(body, name, "")
    if not is_valid_subject(found):
        raise BadToken(f'"{found}" is not a valid subject')
    return found


def _is_service(body: Mapping[str, Any]) -> bool:
    kind = body.get("type")
    if kind not in ("stream", "service"):
        raise BadToken("neither a stream nor a service")
    return bool(kind == "service")


def _export(body: dict[str, Any], account: str, signing_keys: tuple[str, ...]) -> Export:
    needs_token = value(body, "token_req", False)
    return Export(
        _subject(body, "subject"),
        _is_service(body),
        is_single=value(body, "response_type", "") in ("", "Singleton"),
        threshold_ns=value(body, "response_threshold", 0),
        allows_trace=value(body, "allow_trace", False),
        latency=_latency(value(body, "service_latency", {})),
        account_position=value(body, "account_token_position", 0),
        activators=activators(account, signing_keys, value(body, "revocations", {})) if needs_token else None,
    )


def _latency(body: Mapping[str, Any]) -> LatencyOptions | None:
    if not body:
        return None
    given = body.get("sampling")
    by_headers = given is None or (isinstance(given, str) and given.lower() == "headers")
    sampling = BY_HEADERS if by_headers else value(body, "sampling", BY_HEADERS)
    if not BY_HEADERS <= sampling <= EVERY:
        raise BadToken(BAD_SAMPLING)
    return LatencyOptions(value(body, "results", ""), sampling)


def _import(body: dict[str, Any], importer: str) -> Import:
    found = replace(_import_of(body), is_shared=value(body, "share", False))
    if found.is_shared and not found.is_service:
        raise BadToken("share is for services")
    token = value(body, "token", "")
    if not token:
        return found
    given = activation(token, importer, found.account, found.subject, is_service=found.is_service)
    return replace(found, activation=given)


def _import_of(body: dict[str, Any]) -> Import:
    account, subject, is_service = value(body, "account", ""), _subject(body, "subject"), _is_service(body)
    local, to = value(body, "local_subject", ""), value(body, "to", "")
    allows_trace = value(body, "allow_trace", False) and not is_service
    if local or not to:
        return Import(account, subject, is_service, local, allows_trace=allows_trace)
    if is_service:  # in this older form the subject is the importer's
        return Import(account, to, is_service, subject)
    return Import(account, subject, is_service, f"{to.rstrip('.')}.{subject}", allows_trace=allows_trace)


def _trace(body: Mapping[str, Any]) -> dict[str, Any]:  # Any: fields of ``AccountOptions``
    """Where traces of messages with a ``traceparent`` go."""
    given = value(body, "trace", {})
    dest, percent = value(given, "dest", ""), value(given, "sampling", 0)
    if not dest:
        return {}
    if not is_valid_literal(dest):
        raise BadToken(f'"{dest}" is no subject that traces can go to')
    if not 0 <= percent <= PERCENT_MAX:
        raise BadToken("the sampling of traces is not a percentage")
    return {"trace_dest": dest, "trace_sampling": percent}


def _signing_key(given: object) -> tuple[str, UserRules | None]:
    """A key, or a key with the rules of all users that it signs."""
    key, rules = given, None
    if isinstance(given, dict):
        if given.get("kind") != "user_scope":
            raise BadToken(refusal(f"signing key of kind {given.get('kind')}"))
        key, rules = given.get("key"), _rules(value(given, "template", {}), 0, has_templates=True)
    if not isinstance(key, str) or nkey.public_key(key, nkey.ACCOUNT) is None:
        raise BadToken("a signing key is not the public key of an account")
    return key, rules
