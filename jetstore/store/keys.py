"""``Keys``: what seals the bytes of a store at rest, and opens them again.

A store has data keys, each with a number and a cipher; the newest seals, all of them open. Two forms:

- *sealed bytes* (payloads of frames, sections of footers, contents of checkpoint files): authenticated, 29 bytes longer
  than what they hold: number of the key, nonce, ciphertext, tag;
- *the stream of a journal file*: as long as what it hides and readable from any offset on, because a block that is half
  lost must give what is left of it. Each file has a mark of its own (number of the key, then a salt), which stands in
  every block; no place of a file is ever written twice, so no part of the stream is used twice.

A store that is not encrypted has no ``Keys`` at all (``Vfs.keys`` is None). In one that was not when it was made, plain
forms are still read until all of them were written anew (``Keys.is_mixed``); in every other one they are damage.

Source: ``docs/format/keys.md``; RFC 8439 (ChaCha20-Poly1305), NIST SP 800-38A and 38D (AES in counter mode, GCM).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

from jetstore.errors import Corruption
from jetstore.types import Buffer

Cipher = Literal["chacha", "aes"]
KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
SEALED_EXTRA_BYTES = 1 + NONCE_BYTES + TAG_BYTES
MARK_BYTES = 16
NO_MARK = bytes(MARK_BYTES)
"""Of a journal file that is not encrypted."""


@dataclass(frozen=True, slots=True)
class Encryption:
    """What the operator says about encryption at rest."""

    secret: str = field(repr=False)
    cipher: Cipher | None = None
    """What seals from now on; None: as before, in a new store "chacha"."""
    previous: str = field(default="", repr=False)
    """The secret before this one; "" = none."""
    cost: int = 1 << 14
    """What trying a secret costs (N of scrypt, with r = 8: about 50 ms and 16 MiB) once the keys have a new seal."""


class DataKey(NamedTuple):
    """One key, and the cipher that it is used with."""

    cipher: Cipher
    secret: bytes


class Keys:
    """The data keys of one store. Can be pickled: the writer process seals too."""

    def __init__(
        self,
        data_keys: dict[int, DataKey],
        draw: Callable[[int], bytes],
        *,
        is_mixed: bool = False,
        when_sealed: bytes = b"",
    ) -> None:
        """``data_keys`` by number, 1 to 255; the highest seals. ``draw(n)`` gives n random bytes, for nonces.

        ``is_mixed``: plain forms may still be there. ``when_sealed``: they may, or forms under older keys; what KEYS is
        to hold once none is.
        """
        assert data_keys
        assert all(1 <= number <= 255 and len(key.secret) == KEY_BYTES for number, key in data_keys.items())
        self.data_keys = data_keys
        self.newest = max(data_keys)
        self.is_mixed = is_mixed
        """The store was made without keys, and something of that time may still be there as it was."""
        self.when_sealed = when_sealed
        self._draw = draw
        self._ciphers: dict[int, Any] = {}

    def __getstate__(self) -> tuple[dict[int, DataKey], Callable[[int], bytes], bool, bytes]:
        return self.data_keys, self._draw, self.is_mixed, self.when_sealed

    def __setstate__(self, state: tuple[dict[int, DataKey], Callable[[int], bytes], bool, bytes]) -> None:
        data_keys, draw, is_mixed, when_sealed = state
        self.__init__(data_keys, draw, is_mixed=is_mixed, when_sealed=when_sealed)  # type: ignore[misc]  # made anew

    @property
    def is_due(self) -> bool:
        """Whether something plain, or under an older key, may be left."""
        return bool(self.when_sealed)

    def all_sealed(self) -> None:
        """KEYS says, durably, that the newest key seals all there is: all else is damage from now on."""
        self.data_keys = {self.newest: self.data_keys[self.newest]}
        self.is_mixed = False
        self.when_sealed = b""

    @property
    def cipher_name(self) -> str:
        """What seals now, as its standard calls it."""
        return "AES-GCM" if self.data_keys[self.newest].cipher == "aes" else "ChaCha20-Poly1305"

    # -- sealed bytes -----------------------------------------------------------------------------------------------

    def seal(self, plain: Buffer) -> bytes:
        """The sealed form of these bytes; another one each time."""
        nonce = self._draw(NONCE_BYTES)
        return b"%c%b%b" % (self.newest, nonce, self._cipher(self.newest).encrypt(nonce, plain, None))

    def open(self, sealed: Buffer) -> bytes:
        """What was sealed. ``Corruption`` (file "sealed") if it is not what one of these keys has sealed."""
        from cryptography.exceptions import InvalidTag

        view = memoryview(sealed)
        if len(view) < SEALED_EXTRA_BYTES or view[0] not in self.data_keys:
            raise Corruption("sealed with a key that is not there", file="sealed", offset=0, actual=bytes(view[:1]))
        try:
            plain: bytes = self._cipher(view[0]).decrypt(
                bytes(view[1 : 1 + NONCE_BYTES]), view[1 + NONCE_BYTES :], None
            )
        except InvalidTag:
            raise Corruption("sealed bytes were changed", file="sealed", offset=0) from None
        return plain

    def _cipher(self, number: int) -> Any:
        cipher = self._ciphers.get(number)
        if cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

            key = self.data_keys[number]
            cipher = self._ciphers[number] = (AESGCM if key.cipher == "aes" else ChaCha20Poly1305)(key.secret)
        return cipher

    # -- journal files ----------------------------------------------------------------------------------------------

    def new_mark(self) -> bytes:
        """The mark of a journal file that begins."""
        return b"%c%b" % (self.newest, self._draw(MARK_BYTES - 1))

    def knows(self, mark: bytes) -> bool:
        """Whether the key of this mark is there."""
        return mark[0] in self.data_keys

    def journal(self, mark: bytes, offset: int, data: Buffer) -> bytes:
        """Bytes of a journal file from ``offset`` on: hidden if they were plain, plain if they were hidden."""
        from cryptography.hazmat.primitives.ciphers import Cipher as Stream
        from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
        from cryptography.hazmat.primitives.ciphers.modes import CTR

        key = self.data_keys[mark[0]]
        secret = blake2b(mark, key=key.secret, digest_size=KEY_BYTES, person=b"jetstore journal").digest()
        if key.cipher == "aes":
            block, skip = divmod(offset, 16)
            stream: Any = Stream(AES(secret), CTR(block.to_bytes(16, "big")))
        else:
            block, skip = divmod(offset, 64)  # the cipher's counter has 32 bits: files up to 256 GiB
            stream = Stream(ChaCha20(secret, block.to_bytes(4, "little") + bytes(12)), mode=None)
        context = stream.encryptor()
        if skip:
            context.update(bytes(skip))
        changed: bytes = context.update(data)
        return changed


def opened(keys: Keys | None, sealed: Buffer) -> bytes:
    """What was sealed, where there may be no keys. ``Corruption`` as ``Keys.open``."""
    if keys is None:
        raise Corruption("sealed bytes in a store without keys", file="sealed", offset=0)
    return keys.open(sealed)


def check_plain(keys: Keys | None, file: str = "sealed", offset: int = 0) -> None:
    """``Corruption`` unless a form that is not sealed may stand there."""
    if keys is not None and not keys.is_mixed:
        raise Corruption("not sealed, in an encrypted store", file=file, offset=offset)


def shown(keys: Keys, mark: bytes, offset: int, body: bytes) -> bytes:
    """What a journal file with this mark holds at an offset; ``Corruption`` if it must be hidden and is not."""
    if mark != NO_MARK:
        return keys.journal(mark, offset, body)
    check_plain(keys)
    return body
