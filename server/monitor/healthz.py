"""/healthz: whether this server should get traffic, or whether one stream or consumer is there."""

from __future__ import annotations

from typing import Any

from server.monitor.ports import MonitorSource
from server.monitor.query import Query

JsonDict = dict[str, Any]  # Any: a JSON value


class _Unhealthy(Exception):
    def __init__(self, status: int, kind: str, error: str, **place: str) -> None:
        super().__init__(error)
        self.status = status
        self.kind = kind
        self.place = place


def _check_asset(source: MonitorSource, account: str, stream: str, consumer: str) -> None:
    if stream and not account:
        raise _Unhealthy(400, "BAD_REQUEST", '"account" must not be empty when checking stream health')
    if consumer and not stream:
        raise _Unhealthy(400, "BAD_REQUEST", '"stream" must not be empty when checking consumer health')
    if not account or source.jetstream is None:
        return  # without JetStream there is nothing that could be missing
    found = source.jetstream_of(account)
    if found is None or found.jetstream is None:
        raise _Unhealthy(404, "ACCOUNT", f'JetStream account "{account}" not found', account=account)
    if not stream:
        return
    if all(config.name != stream for config in found.jetstream.stream_configs()):
        raise _Unhealthy(
            404,
            "STREAM",
            f'JetStream stream "{stream}" not found on account "{account}"',
            account=account,
            stream=stream,
        )
    if consumer and consumer not in found.jetstream.consumer_names(stream):
        raise _Unhealthy(
            404,
            "CONSUMER",
            f'JetStream consumer "{consumer}" not found for stream "{stream}" on account "{account}"',
            account=account,
            stream=stream,
            consumer=consumer,
        )


def healthz(source: MonitorSource, query: Query) -> tuple[int, JsonDict]:
    """HTTP status and body."""
    only_enabled = query.flag("js-enabled-only") or query.flag("js-enabled")
    only_meta = query.flag("js-server-only") or query.flag("js-meta-only")
    details = query.flag("details")
    try:
        _check_asset(source, query.text("account"), query.text("stream"), query.text("consumer"))
        stream = query.text("stream")
        if only_enabled:
            problem = source.engine_problem()
        elif only_meta:
            problem = source.meta_problem()
        else:
            found = source.jetstream_of(query.text("account")) or source
            problem = found.stream_problem(stream) if stream else source.health_problem()
        if problem:
            raise _Unhealthy(503, "JETSTREAM", problem)
    except _Unhealthy as unhealthy:
        if details:
            error = {"type": unhealthy.kind, **unhealthy.place, "error": str(unhealthy)}
            return unhealthy.status, {"status": "error", "errors": [error]}
        status = "error" if unhealthy.status == 400 else "unavailable"
        return unhealthy.status, {"status": status, "error": str(unhealthy)}
    return 200, {"status": "ok"}
