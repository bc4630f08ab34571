"""Signed claims (JWT) of operators, accounts, users and activations: decoding and checking of the signature.

Only Ed25519 signatures of nkeys, in both versions of the format: version 1 signs the body alone. Source: the JWTs that
``nsc`` writes.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from server.config import nkey

BYTES_MAX: Final = 1 << 20
_ALGORITHMS: Final = ("ed25519", "ed25519-nkey")
_ISSUERS: Final = {
    "operator": (nkey.OPERATOR,),
    "account": (nkey.OPERATOR, nkey.ACCOUNT),
    "user": (nkey.ACCOUNT,),
    "activation": (nkey.ACCOUNT,),
}
_SUBJECTS: Final = {
    "operator": nkey.OPERATOR,
    "account": nkey.ACCOUNT,
    "user": nkey.USER,
    "activation": nkey.ACCOUNT,
}


class BadToken(ValueError):
    """Not such a JWT, or not signed by whom it says; the text says why."""


@dataclass(frozen=True, slots=True)
class Token:
    """Claims whose signature has been checked. Whether the issuer may say so has not. Times in seconds, 0 = none."""

    kind: str
    issuer: str
    subject: str
    name: str
    issued_s: int
    expires_s: int
    not_before_s: int
    version: int
    body: Mapping[str, Any]  # Any: JSON
    """What NATS put there."""

    def is_valid_at(self, now_s: float) -> bool:
        """Whether it is in force."""
        return not (0 < self.expires_s <= now_s or now_s < self.not_before_s)


def decode(text: str, kind: str) -> Token:
    """The claims of a JWT of this kind. Raises ``BadToken``."""
    parts = text.strip().split(".")
    if len(parts) != 3 or len(text) > BYTES_MAX:
        raise BadToken("expected 3 chunks")
    header, claims = (_object(part) for part in parts[:2])
    if value(header, "typ", "").upper() != "JWT" or value(header, "alg", "").lower() not in _ALGORITHMS:
        raise BadToken("not a JWT signed with ed25519")
    body = value(claims, "nats", {})
    version = value(body, "version", 0) or 1
    found = value(claims, "type", "") or value(body, "type", "")
    if found != kind:
        raise BadToken(f"not {kind} claims but {found or 'others'}")
    if version > 2:
        raise BadToken(f"claims of version {version} are not supported by this version of jetstore")
    issuer, subject = value(claims, "iss", ""), value(claims, "sub", "")
    keys = [key for each in _ISSUERS[kind] if (key := nkey.public_key(issuer, each)) is not None]
    signed = parts[1] if version == 1 else f"{parts[0]}.{parts[1]}"
    if not keys or not nkey.is_signature(keys[0], _bytes(parts[2]), signed.encode()):
        raise BadToken("claim failed signature verification")
    if nkey.public_key(subject, _SUBJECTS[kind]) is None:
        raise BadToken(f"the subject is not the public key of: {kind}")
    return Token(
        kind,
        issuer,
        subject,
        value(claims, "name", ""),
        value(claims, "iat", 0),
        value(claims, "exp", 0),
        value(claims, "nbf", 0),
        version,
        body,
    )


def value(block: Mapping[str, Any], name: str, default: Any) -> Any:
    """A member that has the type of the default, or the default where it is absent or null. Raises ``BadToken``."""
    found = block.get(name)
    if found is None:
        return default
    if type(found) is not type(default):
        raise BadToken(f"{name} is not of type {type(default).__name__}")
    if isinstance(found, int) and not -(2**63) <= found < 2**63:
        raise BadToken(f"{name} is not an integer of 64 bits")
    return found


def strings(block: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A member that is a list of strings; empty where it is absent. Raises ``BadToken``."""
    found = value(block, name, [])
    if not all(isinstance(each, str) for each in found):
        raise BadToken(f"{name} is not a list of strings")
    return tuple(found)


def _bytes(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadToken("not base64url") from None


def _object(part: str) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(part))
    except (ValueError, RecursionError):
        raise BadToken("not JSON") from None
    if not isinstance(found, dict):
        raise BadToken("not a JSON object")
    return found
