"""Public keys as users write them: ``U`` and 55 more base32 characters. Source: the nkeys format."""

from __future__ import annotations

import base64
import binascii

USER, ACCOUNT, OPERATOR = 20 << 3, 0, 14 << 3
"""First bytes of users', accounts' and operators' keys."""
_KEY_BYTES = 32


def public_key(text: str, kind: int) -> bytes | None:
    """The 32 bytes of an Ed25519 public key of this kind; None: it is no such key."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        return None
    if len(raw) != 1 + _KEY_BYTES + 2 or raw[0] != kind:
        return None
    if binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        return None
    return raw[1:-2]


def is_signature(key: bytes, signature: bytes, text: bytes) -> bool:
    """Whether ``signature`` is that of ``text`` by the holder of an Ed25519 key."""
    from cryptography.exceptions import InvalidSignature  # loaded when first needed
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True
