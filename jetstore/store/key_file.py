"""KEYS: the data keys of an encrypted store, each sealed with a key that is made of the operator's secret.

Two copies, ``KEYS`` and ``KEYS.b``, in frames like those of checkpoints. A new secret seals the same data keys anew and
adds one, which seals what is written from then on; so does another cipher. A store that has something in it gets its
keys in the state *mixed*: plain forms may be read. The state is bound into the seal of the data keys, so nobody without
the secret can set it.

What is plain, or under an older key, is written anew while the store is served; then ``end_sealing`` leaves the newest
data key alone in the file.

Source: ``docs/format/keys.md``; RFC 7914 (scrypt).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import scrypt
from typing import Any, NamedTuple

from jetstore.errors import Corruption, FormatUnknown, OperatingError
from jetstore.store.checkpoint_files import KIND_KEYS, read_framed, write_framed
from jetstore.store.keys import KEY_BYTES, NONCE_BYTES, DataKey, Encryption, Keys
from jetstore.store.vfs import Vfs
from jetstore.types import GroupUid

NAMES = ("KEYS", "KEYS.b")
DATA_KEYS_MAX = 255
"""With this number a new secret or cipher seals the keys that are there and adds none."""
BEGUN = "the store is encrypted from now on; what it held before is encrypted while it serves"
_NO_SECRET = (
    "this store is encrypted: it opens with its key alone, and there is no way back (but backup and restore of its"
    " streams into another store)"
)
_SALT_BYTES = 16
_BLOCKS = 8
"""r of scrypt; p is 1."""
_MEMORY_BYTES_MAX = 256 << 20
_NO_GROUP = GroupUid(0)


class _Opened(NamedTuple):
    """What a secret opened."""

    data_keys: dict[int, DataKey]
    is_mixed: bool
    is_current: bool
    """By the secret itself, not the one before."""
    seal: Any
    salt: bytes
    cost: int


def open_keys(
    vfs: Vfs,
    wanted: Encryption | None,
    draw: Callable[[int], bytes],
    *,
    is_new: bool,
    check_beginning: Callable[[], None] = lambda: None,
) -> tuple[Keys | None, list[str]]:
    """The store's keys, durable if they are new, and what there is to say about them; None: it is not encrypted.

    ``is_new``: nothing was stored yet. Else a store without keys gets them in the state *mixed*, unless
    ``check_beginning`` raises. Raises OperatingError, nothing changed, if the store is encrypted and there is no secret
    that opens its keys; Corruption if no copy of the keys can be read.
    """
    found, notes = _read_copies(vfs)
    if wanted is None:
        if found:
            raise OperatingError(_NO_SECRET)
        return None, []
    if not found and not is_new:
        check_beginning()
        notes.append(BEGUN)
    opened = _opened(found, wanted) if found else None
    is_mixed = opened.is_mixed if opened is not None else not is_new
    data_keys = dict(opened.data_keys) if opened is not None else {}
    newest = data_keys[max(data_keys)] if data_keys else None
    is_current = opened is not None and opened.is_current
    is_complete = is_current and len(found) == len(NAMES) and found[0] == found[1] and not notes
    if newest is None or not is_current or wanted.cipher not in (None, newest.cipher):
        is_complete = False
        if max(data_keys, default=0) < DATA_KEYS_MAX:
            cipher = wanted.cipher or (newest.cipher if newest is not None else "chacha")
            data_keys[max(data_keys, default=0) + 1] = DataKey(cipher, draw(KEY_BYTES))
        if newest is not None:
            notes.append("the data keys have a new seal" if not is_current else "another cipher seals from now on")
    if is_complete:
        assert opened is not None
        _, _, _, seal, salt, cost = opened
    else:
        salt, cost = draw(_SALT_BYTES), wanted.cost
        seal = _seal_of(wanted.secret, salt, cost)
        content = _content(seal, salt, cost, data_keys, draw, is_mixed=is_mixed)
        for name in NAMES:
            write_framed(vfs, _NO_GROUP, KIND_KEYS, name, content)
    return _keys(data_keys, is_mixed, seal, salt, cost, draw), notes


def read_keys(vfs: Vfs, wanted: Encryption | None, draw: Callable[[int], bytes]) -> Keys | None:
    """The store's keys, just as they are: nothing is written. Raises as ``open_keys`` does."""
    found, _ = _read_copies(vfs)
    if not found:
        return None
    if wanted is None:
        raise OperatingError(_NO_SECRET)
    data_keys, is_mixed, _, seal, salt, cost = _opened(found, wanted)
    return _keys(data_keys, is_mixed, seal, salt, cost, draw)


def _keys(
    data_keys: dict[int, DataKey], is_mixed: bool, seal: Any, salt: bytes, cost: int, draw: Callable[[int], bytes]
) -> Keys:
    when_sealed = b""
    if is_mixed or len(data_keys) > 1:
        newest = max(data_keys)
        when_sealed = _content(seal, salt, cost, {newest: data_keys[newest]}, draw)
    return Keys(data_keys, draw, is_mixed=is_mixed, when_sealed=when_sealed)


def end_sealing(vfs: Vfs, when_sealed: bytes) -> None:
    """KEYS says, durably, that the newest key seals all there is; others are gone. DiskFull: it does not yet."""
    for name in NAMES:
        write_framed(vfs, _NO_GROUP, KIND_KEYS, name, when_sealed)


def _read_copies(vfs: Vfs) -> tuple[list[dict[str, Any]], list[str]]:
    """The readable copies, and what was wrong with the others. Corruption if there are some and none is readable."""
    found: list[dict[str, Any]] = []
    findings: list[str] = []
    for name in NAMES:
        if not vfs.exists(name):
            continue
        try:
            found.append(json.loads(read_framed(vfs, _NO_GROUP, KIND_KEYS, name)))
        except FormatUnknown:
            raise
        except (Corruption, OSError) as error:
            findings.append(str(error))
    if findings and not found:
        raise Corruption("no copy of the keys is readable: " + "; ".join(findings), file=NAMES[0], offset=0)
    return found, findings


def _opened(found: list[dict[str, Any]], wanted: Encryption) -> _Opened:
    """What the secret opens, else the one before it. Copies are replaced in order: the first one is the newest."""
    for secret in (wanted.secret, wanted.previous):
        for copy in found if secret else ():
            opened = _unsealed(copy, secret, is_current=secret == wanted.secret)
            if opened is not None:
                return opened
    raise OperatingError(
        "the key does not open this store" + (", nor does the previous one" if wanted.previous else "")
    )


def _unsealed(copy: dict[str, Any], secret: str, *, is_current: bool) -> _Opened | None:
    from cryptography.exceptions import InvalidTag

    salt, cost, is_mixed = bytes.fromhex(copy["salt"]), copy["cost"], bool(copy.get("mixed"))
    seal = _seal_of(secret, salt, cost)
    data_keys: dict[int, DataKey] = {}
    for number, cipher, nonce, sealed in copy["keys"]:
        try:
            plain = seal.decrypt(bytes.fromhex(nonce), bytes.fromhex(sealed), _bound(number, cipher, is_mixed))
        except InvalidTag:
            return None
        data_keys[number] = DataKey(cipher, plain)
    return _Opened(data_keys, is_mixed, is_current, seal, salt, cost)


def _content(
    seal: Any,
    salt: bytes,
    cost: int,
    data_keys: dict[int, DataKey],
    draw: Callable[[int], bytes],
    *,
    is_mixed: bool = False,
) -> bytes:
    """What a copy of KEYS holds."""
    rows = []
    for number, key in sorted(data_keys.items()):
        nonce = draw(NONCE_BYTES)
        sealed = seal.encrypt(nonce, key.secret, _bound(number, key.cipher, is_mixed))
        rows.append([number, key.cipher, nonce.hex(), sealed.hex()])
    state = {"mixed": True} if is_mixed else {}
    return json.dumps({"cost": cost, "salt": salt.hex(), "keys": rows, **state}).encode()


def _seal_of(secret: str, salt: bytes, cost: int) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(scrypt(secret.encode(), salt=salt, n=cost, r=_BLOCKS, p=1, dklen=KEY_BYTES, maxmem=_MEMORY_BYTES_MAX))


def _bound(number: int, cipher: str, is_mixed: bool) -> bytes:
    """What a sealed data key is bound to."""
    return f"{number} {cipher}{' mixed' if is_mixed else ''}".encode()
