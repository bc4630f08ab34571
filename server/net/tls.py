"""TLS between a transport and a connection, over the standard library's in-memory TLS.

One layer for every way a handshake may begin, because the first thing a client of NATS reads is INFO, in clear::

    required   INFO in clear, then the handshake
    optional   INFO in clear, then a handshake if the client's first byte says so, else nothing of all this
    first      the handshake, then INFO (inside)
    waiting    a moment for a handshake; if none begins: as required

What the connection says before the handshake is over waits for it; what it says first (INFO) is in clear unless the
handshake comes first.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from enum import Enum
from typing import Any

from server.config.tls import TlsOptions
from server.net.layer import Inner, Layer

HANDSHAKE = 0x16
"""First byte of a client that begins TLS."""
_READ_BYTES = 256 * 1024
_DN = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "postalCode": "POSTALCODE",
    "serialNumber": "SERIALNUMBER",
    "domainComponent": "DC",
    "userId": "UID",
}


def context_of(options: TlsOptions) -> ssl.SSLContext:
    """The context of a configuration. Raises OSError (``ssl.SSLError`` is one) if its files are no good."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if options.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(options.cert_file, options.key_file, password=lambda: "")
    if options.verify:
        context.verify_mode = ssl.CERT_REQUIRED
        if options.ca_file:
            context.load_verify_locations(options.ca_file)
        else:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    return context


class _State(Enum):
    UNDECIDED = 1
    HANDSHAKING = 2
    ESTABLISHED = 3
    PLAIN = 4
    CLOSED = 5


class TlsLayer(Layer[Inner]):
    """See the module's docstring. One object per connection."""

    def __init__(
        self,
        inner: Inner,
        context: ssl.SSLContext,
        options: TlsOptions,
        loop: asyncio.AbstractEventLoop,
        *,
        is_optional: bool = False,
    ) -> None:
        """``is_optional``: clients without TLS are served (``allow_non_tls``)."""
        super().__init__(inner, loop)
        self._options = options
        self._is_optional = is_optional
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._state = _State.UNDECIDED
        self._is_in_clear = False
        self._waiting: list[bytes] = []

    # -- as the transport's protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        options = self._options
        if not options.handshake_first:
            self._greet()
            return
        if options.first_wait_ns:
            self._arm(options.first_wait_ns, self._no_handshake_came)
        else:
            self._arm(options.timeout_ns, self._timed_out)

    def _greet(self) -> None:
        """INFO in clear; from then on TLS, or, where that is optional, what the client's first byte says."""
        self._is_in_clear = True
        self._begin()
        self._is_in_clear = False
        if not self._is_optional:
            self._arm(self._options.timeout_ns, self._timed_out)

    def _begin(self) -> None:
        if not self._is_made and self._state is not _State.CLOSED:
            self._is_made = True
            self._inner.connection_made(self)

    def _no_handshake_came(self) -> None:
        self._timer = None
        if self._state is _State.UNDECIDED:
            self._greet()

    def _timed_out(self) -> None:
        self._timer = None
        if self._state in (_State.UNDECIDED, _State.HANDSHAKING):
            self._fail("TLS handshake timeout")

    def data_received(self, data: bytes) -> None:
        if self._state is _State.PLAIN:
            self._inner.data_received(data)
            return
        if self._state is _State.CLOSED:
            return
        if self._state is _State.UNDECIDED:
            if self._is_optional and data[0] != HANDSHAKE:
                self._disarm()
                self._state = _State.PLAIN
                self._begin()
                self._send_waiting()
                self._inner.data_received(data)
                return
            self._state = _State.HANDSHAKING
            self._arm(self._options.timeout_ns, self._timed_out)
        self._incoming.write(data)
        if self._state is _State.HANDSHAKING and not self._shake_hands():
            return
        self._read()

    def _shake_hands(self) -> bool:
        """Whether the handshake is over and good."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except (ssl.SSLError, ssl.CertificateError) as error:
            self._flush()
            self._fail(f"TLS handshake error: {error}")
            return False
        self._disarm()
        self._flush()
        der = self._tls.getpeercert(binary_form=True)
        if self._options.pinned_certs and (not der or key_hash(der) not in self._options.pinned_certs):
            self._fail("certificate not pinned")
            return False
        self._state = _State.ESTABLISHED
        self._inner.tls_established(names_of(self._tls.getpeercert() or {}))
        self._begin()
        self._send_waiting()
        return True

    def _read(self) -> None:
        chunks: list[bytes] = []
        is_over = False
        try:
            while chunk := self._tls.read(_READ_BYTES):
                chunks.append(chunk)
            is_over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            is_over = True
        self._flush()
        if chunks:
            self._inner.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if is_over and self._state is _State.ESTABLISHED:
            self._inner.eof_received()
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _State.CLOSED
        super().connection_lost(exc)

    def _fail(self, problem: str) -> None:
        self._disarm()
        self._state = _State.CLOSED
        if self._is_made:
            self._inner.tls_failed(problem)
        assert self._transport is not None
        self._transport.close()

    # -- as the connection's transport ------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        transport = self._transport
        assert transport is not None
        if self._is_in_clear or self._state is _State.PLAIN:
            transport.write(data)
        elif self._state is _State.ESTABLISHED:
            self._encrypt(data)
        elif self._state is not _State.CLOSED:
            self._waiting.append(bytes(data))

    def _encrypt(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError:
            self.abort()
            return
        self._flush()

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.write(data)

    def _flush(self) -> None:
        if self._outgoing.pending and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())

    def close(self) -> None:
        transport = self._transport
        assert transport is not None
        if self._state is _State.ESTABLISHED:
            self._state = _State.CLOSED
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # the other side's goodbye is not waited for
            self._flush()
        elif self._state is not _State.PLAIN:
            self._state = _State.CLOSED
        transport.close()

    def abort(self) -> None:
        self._state = _State.CLOSED
        super().abort()

    def get_write_buffer_size(self) -> int:
        return super().get_write_buffer_size() + sum(map(len, self._waiting))


def key_hash(der: bytes) -> str:
    """SHA-256 (hex) of a certificate's public key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import load_der_x509_certificate

    key = load_der_x509_certificate(der).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def names_of(certificate: Any) -> tuple[str, ...]:  # Any: what ssl gives
    """What a certificate calls its owner: e-mail addresses, DNS names, URIs, then the subject as RFC 2253 writes it."""
    alternatives = certificate.get("subjectAltName", ())
    names = [name for wanted in ("email", "DNS", "URI") for kind, name in alternatives if kind == wanted]
    parts = certificate.get("subject", ())
    relative = ["+".join(f"{_DN.get(key, key)}={value}" for key, value in part) for part in parts]
    if relative:
        names.append(",".join(reversed(relative)))
    return tuple(names)
