"""TLS on real sockets: every way a handshake may begin, clients' certificates, and what fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jetstore.clock import RealClock
from jetstore.limits import Limits
from jetstore.model.server_limits import ServerLimits
from server.app import Server, World
from server.config.errors import ConfigProblems
from server.config.reader import load_options
from server.net.tls import key_hash, names_of

LIMIT_S = 20.0
CONNECT = b'CONNECT {"verbose":false,"protocol":1}\r\n'


class Authority:
    """Signs certificates and writes them to files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        certificate = self._sign(self.name, self.key.public_key(), [], is_authority=True)
        (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        names: list[x509.GeneralName],
        *,
        is_authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(issuer, critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, who: str, *names: x509.GeneralName) -> str:
        """Certificate and key as ``<who>.pem`` and ``<who>.key``; the hash of the key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "us"), x509.NameAttribute(NameOID.COMMON_NAME, who)]
        )
        certificate = self._sign(subject, key.public_key(), list(names))
        (self.folder / f"{who}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / f"{who}.key").write_bytes(private)
        return key_hash(certificate.public_bytes(serialization.Encoding.DER))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    authority.issue("server", x509.DNSName("localhost"))
    authority.issue("ann", x509.RFC822Name("ann@example.com"), x509.DNSName("ann.example.com"))
    authority.issue("bob")
    return authority


def context(authority: Authority, who: str = "") -> ssl.SSLContext:
    """A client's."""
    found = ssl.create_default_context(cafile=str(authority.folder / "ca.pem"))
    if who:
        found.load_cert_chain(authority.folder / f"{who}.pem", authority.folder / f"{who}.key")
    return found


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def serve(authority: Authority, more: str, talk: Callable[[int], Awaitable[None]], rest: str = "") -> None:
    """A server with a ``tls`` block, and somebody who talks to its port."""
    folder = authority.folder
    path = folder / "x.conf"
    path.write_text(
        f'tls {{ cert_file: "{folder}/server.pem", key_file: "{folder}/server.key", ca_file: "{folder}/ca.pem"'
        f"\n{more} }}\n{rest}"
    )

    async def run() -> None:
        loop = asyncio.get_running_loop()
        world = World(loop, RealClock(), Random(1), Limits(), ServerLimits())
        server = Server(load_options(path, {}), world, None, lambda error: None)
        port = await server.clients.start("127.0.0.1", -1)
        try:
            await asyncio.wait_for(talk(port), LIMIT_S)
        finally:
            await server.clients.stop()

    asyncio.run(run())


async def greeted(port: int) -> tuple[Streams, bytes]:
    """A connection that has read INFO in clear."""
    streams = await asyncio.open_connection("127.0.0.1", port)
    return streams, await streams[0].readline()


async def upgraded(port: int, tls: ssl.SSLContext) -> tuple[Streams, bytes]:
    (reader, writer), info = await greeted(port)
    await writer.start_tls(tls, server_hostname="localhost")
    return (reader, writer), info


async def first_encrypted(port: int, tls: ssl.SSLContext) -> Streams:
    return await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost")


async def ping(streams: Streams, first: bytes = CONNECT) -> bytes:
    """What comes up to the PONG."""
    reader, writer = streams
    writer.write(first + b"PING\r\n")
    return await reader.readuntil(b"PONG\r\n")


async def rest_of(streams: Streams) -> bytes:
    """What comes before the server closes."""
    try:
        return await streams[0].read()
    except (ConnectionError, ssl.SSLError):
        return b""
    finally:
        streams[1].close()


async def is_refused(port: int, tls: ssl.SSLContext) -> bool:
    try:
        streams, _ = await upgraded(port, tls)
    except (ConnectionError, ssl.SSLError):
        return True
    streams[1].write(CONNECT + b"PING\r\n")
    return b"PONG" not in await rest_of(streams)


def test_info_is_in_clear_and_all_else_is_not(authority: Authority) -> None:
    async def talk(port: int) -> None:
        streams, info = await upgraded(port, context(authority))
        assert b'"tls_required":true' in info
        assert b"tls_verify" not in info
        assert await ping(streams) == b"PONG\r\n"
        assert b'"connect_info":true' in await streams[0].readline()
        payload = b"x" * 900_000
        streams[1].write(b"SUB a 1\r\n" + b"PUB a 900000\r\n%b\r\n" % payload * 5)
        expected = b"MSG a 1 900000\r\n%b\r\n" % payload
        for _ in range(5):
            assert await streams[0].readexactly(len(expected)) == expected
        streams[1].close()

    serve(authority, "", talk)


def test_clear_text_is_not_let_in(authority: Authority) -> None:
    async def talk(port: int) -> None:
        streams, _ = await greeted(port)
        streams[1].write(CONNECT + b"PING\r\n")
        assert b"PONG" not in await rest_of(streams)
        silent, _ = await greeted(port)
        assert await rest_of(silent) == b""

    serve(authority, 'timeout: "200ms"', talk)


def test_a_client_may_choose(authority: Authority) -> None:
    async def talk(port: int) -> None:
        plain, info = await greeted(port)
        assert b'"tls_available":true' in info
        assert b"tls_required" not in info
        assert await ping(plain) == b"PONG\r\n"
        encrypted, _ = await upgraded(port, context(authority))
        assert await ping(encrypted) == b"PONG\r\n"
        for _, writer in (plain, encrypted):
            writer.close()

    serve(authority, "", talk, "allow_non_tls: true")


def test_the_handshake_may_come_first(authority: Authority) -> None:
    async def talk(port: int) -> None:
        streams = await first_encrypted(port, context(authority))
        assert b'"tls_required":true' in await streams[0].readline()
        assert await ping(streams) == b"PONG\r\n"
        streams[1].close()
        late = await asyncio.open_connection("127.0.0.1", port)
        assert await rest_of(late) == b"", "nothing is said in clear"

    serve(authority, 'handshake_first: true, timeout: "200ms"', talk)


def test_both_kinds_of_clients_on_one_port(authority: Authority) -> None:
    async def talk(port: int) -> None:
        early = await first_encrypted(port, context(authority))
        assert (await early[0].readline()).startswith(b"INFO")
        assert await ping(early) == b"PONG\r\n"
        late, info = await upgraded(port, context(authority))
        assert info.startswith(b"INFO")
        assert await ping(late) == b"PONG\r\n"
        for _, writer in (early, late):
            writer.close()

    serve(authority, "handshake_first: auto", talk)


def test_clients_must_have_a_certificate(authority: Authority) -> None:
    async def talk(port: int) -> None:
        good, info = await upgraded(port, context(authority, "bob"))
        assert b'"tls_verify":true' in info
        assert await ping(good) == b"PONG\r\n"
        good[1].close()
        assert await is_refused(port, context(authority))

    serve(authority, "verify: true", talk)


def test_a_certificate_names_the_user(authority: Authority) -> None:
    users = """authorization { users: [
        { user: "ann@example.com", permissions: { publish: "ann" } }
        { user: "CN=bob,O=us", permissions: { publish: "bob" } } ] }"""

    async def talk(port: int) -> None:
        for who, other in (("ann", "bob"), ("bob", "ann")):
            streams, _ = await upgraded(port, context(authority, who))
            answer = await ping(streams, CONNECT + f"PUB {who} 0\r\n\r\nPUB {other} 0\r\n\r\n".encode())
            assert answer == f"-ERR 'Permissions Violation for Publish to \"{other}\"'\r\nPONG\r\n".encode()
            streams[1].close()
        stranger, _ = await upgraded(port, context(authority, "server"))
        stranger[1].write(CONNECT)
        assert await rest_of(stranger) == b"-ERR 'Authorization Violation'\r\n"

    serve(authority, "verify_and_map: true", talk, users)


def test_pinned_certificates(authority: Authority) -> None:
    pin = authority.issue("pinned")

    async def talk(port: int) -> None:
        good, _ = await upgraded(port, context(authority, "pinned"))
        assert await ping(good) == b"PONG\r\n"
        good[1].close()
        assert await is_refused(port, context(authority, "bob"))

    serve(authority, f'verify: true, pinned_certs: ["{pin}"]', talk)


def test_names() -> None:
    alternatives = (("DNS", "d"), ("URI", "u"), ("email", "e"))
    subject = ((("countryName", "X"),), (("commonName", "c"),))
    assert names_of({"subjectAltName": alternatives, "subject": subject}) == ("e", "d", "u", "CN=c,C=X")
    assert names_of({}) == ()


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ('{ cert_file: "here" }', "missing 'key_file' in TLS configuration"),
        ('{ key_file: "here" }', "missing 'cert_file' in TLS configuration"),
        (
            '{ cert_file: "/no/c.pem", key_file: "/no/k.pem" }',
            "error parsing X509 certificate/key pair: open /no/c.pem: no such file or directory",
        ),
        ('{ cipher_suites: ["x"] }', '"cipher_suites" is not supported by this version of jetstore'),
        ('{ min_version: "1.1" }', "unsupported TLS version: 1.1"),
        ('{ pinned_certs: ["x"] }', "error parsing 'pinned_certs' key x does not match hex-encoded sha256"),
    ],
)
def test_mistakes(tmp_path: Path, block: str, problem: str) -> None:
    path = tmp_path / "x.conf"
    path.write_text(f"tls {block}")
    with pytest.raises(ConfigProblems) as caught:
        load_options(path, {})
    assert problem in str(caught.value)
