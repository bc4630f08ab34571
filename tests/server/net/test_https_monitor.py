"""Monitoring with TLS: the ``tls`` block's certificate, no client certificates, renewed by a reload."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from test_tls import LIMIT_S, Authority, context

from jetstore.clock import RealClock
from jetstore.limits import Limits
from jetstore.model.server_limits import ServerLimits
from server.app import Server, World
from server.config.options import Options, start_problem
from server.config.reader import load_options
from server.operation import listeners


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue("server", x509.DNSName("localhost"))
    return authority


def options(authority: Authority, text: str) -> Options:
    folder = authority.folder
    files = f'cert_file: "{folder}/server.pem", key_file: "{folder}/server.key", ca_file: "{folder}/ca.pem"'
    path = folder / "x.conf"
    path.write_text(f"listen: 127.0.0.1:-1\ntls {{ {files}, verify: true }}\n{text}")
    return load_options(path, {})


async def get(port: int, tls: ssl.SSLContext) -> tuple[bytes, bytes]:
    """The answer to a request, and the certificate of who gave it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost")
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return answer, certificate


def test_pages_come_encrypted(authority: Authority) -> None:
    given = options(authority, "https: 127.0.0.1:-1")

    async def run() -> None:
        world = World(asyncio.get_running_loop(), RealClock(), Random(1), Limits(), ServerLimits())
        server = Server(given, world, None, lambda error: None)
        await server.start()
        try:
            assert listeners(server)["monitoring"] == [f"https://127.0.0.1:{server.http_port}"]
            answer, certificate = await get(server.http_port, context(authority))
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b'{"status":"ok"}')
            authority.issue("server", x509.DNSName("localhost"))
            server.renew_monitor_certificate(given)
            answer, renewed = await get(server.http_port, context(authority))
            assert answer.startswith(b"HTTP/1.1 200")
            assert renewed != certificate
            with pytest.raises(ssl.SSLError):
                await get(server.http_port, ssl.create_default_context())
        finally:
            await server.stop()

    asyncio.run(asyncio.wait_for(run(), LIMIT_S))


def test_what_does_not_go_together(authority: Authority) -> None:
    both = options(authority, "http: 127.0.0.1:8222\nhttps: 127.0.0.1:8223")
    assert start_problem(both) == "can't specify both HTTP (8222) and HTTPs (8223) ports"
    path = authority.folder / "y.conf"
    path.write_text("https_port: 8223")
    assert start_problem(load_options(path, {})) == "TLS cert and key required for HTTPS"
