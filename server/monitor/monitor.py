"""``Monitor``: listens, routes paths to pages, counts requests."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final
from urllib.parse import unquote

from jetstore.model.json import encode, encode_indented
from server.monitor.accountz import accountz, accstatz
from server.monitor.connz import connz
from server.monitor.healthz import healthz
from server.monitor.http import TEXT, HttpListener, Response
from server.monitor.jsz import jsz
from server.monitor.metrics import CONTENT_TYPE, metrics
from server.monitor.page import index_page
from server.monitor.ports import MonitorSource
from server.monitor.process import ProcessUsage
from server.monitor.query import BadParameter, Query
from server.monitor.routez import gatewayz, leafz, routez
from server.monitor.subsz import subsz
from server.monitor.varz import varz

JSON_HEADERS: Final = (("Access-Control-Allow-Origin", "*"),)
PATHS: Final = (
    *("/", "/varz", "/connz", "/routez", "/subsz", "/accountz", "/accstatz", "/leafz", "/gatewayz"),
    *("/jsz", "/healthz", "/metrics"),
)
_OTHER_NAMES: Final = {"/subscriptionsz": "/subsz"}
NOT_FOUND: Final = Response(404, b"404 page not found\n", TEXT, (("X-Content-Type-Options", "nosniff"),))


class Monitor:
    """The monitoring server. ``start`` gives the port it listens on."""

    def __init__(self, source: MonitorSource) -> None:
        self.source = source
        self.requests: dict[str, int] = {}
        """Requests by path."""
        self._usage = ProcessUsage()
        self._listener = HttpListener(self.answer)
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen (port -1 or 0 = any free one), with TLS if there is a context. ``OSError`` if it cannot."""
        self._server = await self._listener.listen(host, port, tls)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening and drop whoever is connected. Idempotent."""
        if self._server is not None:
            self._server.close()
            await self._listener.close_connections()
            self._server = None

    async def answer(self, target: str) -> Response:
        """The response to a GET of ``target`` (path and query)."""
        path, _, query_text = target.partition("?")
        base = self.source.facts.http_base_path.rstrip("/")
        path = unquote(path)
        if base:
            if not path.startswith(base + "/") and path != base:
                return NOT_FOUND
            path = path[len(base) :] or "/"
        path = _OTHER_NAMES.get(path, path)
        if path in PATHS:
            self.requests[path] = self.requests.get(path, 0) + 1
        try:
            return await self._page(path, Query(query_text))
        except BadParameter as error:
            return Response(400, str(error).encode(), TEXT)

    async def _page(self, path: str, query: Query) -> Response:
        match path:
            case "/":
                return Response(200, index_page(self.source.facts), "text/html; charset=utf-8")
            case "/varz":
                return _json(varz(self.source, self._usage.sample(), self.requests))
            case "/routez":
                return _json(routez(self.source))
            case "/connz":
                return _json(connz(self.source, query))
            case "/jsz":
                return _json(await jsz(self.source, query))
            case "/subsz":
                return _json(subsz(self.source, query))
            case "/accountz":
                return _json(accountz(self.source, query))
            case "/accstatz":
                return _json(accstatz(self.source, query))
            case "/leafz":
                return _json(leafz(self.source))
            case "/gatewayz":
                return _json(gatewayz(self.source))
            case "/raftz" if self.source.cluster is None:
                return Response(404, b"No Raft nodes registered", TEXT)
            case "/healthz":
                status, body = healthz(self.source, query)
                return Response(status, encode(body), "application/json", JSON_HEADERS)
            case "/metrics":
                return Response(200, await metrics(self.source, self._usage.sample()), CONTENT_TYPE)
        return NOT_FOUND


def _json(body: dict[str, Any]) -> Response:
    return Response(200, encode_indented(body), "application/json", JSON_HEADERS)
