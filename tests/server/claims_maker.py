"""Keys and signed claims for tests: what ``nsc`` would make."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server.config import nkey

Json = Any  # Any: JSON values


class Key:
    """One key pair, the same for the same name."""

    def __init__(self, kind: int, name: str) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"{kind} {name}".encode()).digest())
        raw = bytes([kind]) + self.private.public_key().public_bytes_raw()
        checked = raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")
        self.public = base64.b32encode(checked).decode().rstrip("=")

    def sign(self, text: str) -> str:
        """What goes into CONNECT's ``sig``."""
        return _base64(self.private.sign(text.encode()))


def operator_key(name: str = "o") -> Key:
    return Key(nkey.OPERATOR, name)


def account_key(name: str) -> Key:
    return Key(nkey.ACCOUNT, name)


def user_key(name: str) -> Key:
    return Key(nkey.USER, name)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def token(kind: str, issuer: Key, subject: Key, body: Json = None, *, version: int = 2, **claims: Json) -> str:
    """Signed claims; ``claims`` go to their top level."""
    given: Json = {"iss": issuer.public, "sub": subject.public, "iat": 1_700_000_000, "name": "n", "jti": "x", **claims}
    nats = dict(body or {})
    if version == 1:
        given["type"] = kind
    else:
        nats |= {"type": kind, "version": version}
    header = _base64(json.dumps({"typ": "JWT", "alg": "ed25519" if version == 1 else "ed25519-nkey"}).encode())
    claimed = _base64(json.dumps({**given, "nats": nats}).encode())
    signed = claimed if version == 1 else f"{header}.{claimed}"
    return f"{header}.{claimed}.{issuer.sign(signed)}"


FREE: Json = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1}
FREE |= {"wildcards": True}
USER: Json = {"subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
