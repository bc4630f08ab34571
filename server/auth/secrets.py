"""Comparing what proves who somebody is: bcrypt hashes and signatures. The libraries are loaded when first needed."""

from __future__ import annotations

import base64
import binascii

from server.config import nkey

_BCRYPT_BYTES = 72
"""bcrypt looks at so much of a password."""
_SIGNATURE_BYTES = 64


def is_bcrypt_of(hashed: str, given: str) -> bool:
    """Whether this is the password of a bcrypt hash. Takes as long as the hash's cost says."""
    import bcrypt

    try:
        return bcrypt.checkpw(given.encode("utf-8", "replace")[:_BCRYPT_BYTES], hashed.encode())
    except ValueError:  # not a hash after all, or a password with a NUL
        return False


def is_signed(public: str, signature: str, text: str) -> bool:
    """Whether ``signature`` (base64, any of its alphabets, padded or not) is that user's of ``text``."""
    key = nkey.public_key(public, nkey.USER)
    try:
        raw = base64.b64decode(signature.replace("-", "+").replace("_", "/") + "=" * (-len(signature) % 4))
    except (binascii.Error, ValueError):
        return False
    if key is None or len(raw) != _SIGNATURE_BYTES or not text:
        return False
    return nkey.is_signature(key, raw, text.encode())
