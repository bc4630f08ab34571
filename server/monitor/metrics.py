"""/metrics: counters for Prometheus, read when scraped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from jetstore.model.infos import ConsumerInfo, StreamInfo
from jetstore.model.requests import StreamInfoRequest
from server.monitor.cluster_metrics import cluster_families
from server.monitor.jsz import NOT_SHOWN
from server.monitor.ports import EngineCounters, MonitorSource
from server.monitor.process import Usage

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
ASSETS_MAX: Final = 10_000
"""Streams and consumers shown at most, each; the rest only counts in the totals."""

Streams = list[tuple[str, StreamInfo]]
"""With their accounts."""
Consumers = list[tuple[str, ConsumerInfo]]


class ScrapeCollector(Collector):
    """One scrape: plain values in, metric families out."""

    def __init__(self, source: MonitorSource, usage: Usage, streams: Streams, consumers: Consumers) -> None:
        self._source = source
        self._usage = usage
        self._streams = streams
        self._consumers = consumers

    def collect(self) -> Iterable[Metric]:
        """All families."""
        yield from self._server()
        if self._source.jetstream is not None:
            yield from self._jetstream()

    def _server(self) -> Iterable[Metric]:
        facts, traffic = self._source.facts, self._source.clients.traffic()
        info = GaugeMetricFamily(
            "jetstore_info", "The server.", labels=["server_id", "server_name", "version", "nats_version"]
        )
        info.add_metric([facts.server_id, facts.server_name, facts.jetstore, facts.version], 1)
        yield info
        problem = self._source.health_problem()
        yield GaugeMetricFamily("jetstore_healthy", "1 while /healthz says ok.", value=0 if problem else 1)
        yield GaugeMetricFamily("jetstore_start_time_seconds", "When it started.", value=facts.start_ns / 1e9)
        yield GaugeMetricFamily("jetstore_memory_bytes", "Resident memory.", value=self._usage.resident_bytes)
        yield GaugeMetricFamily("jetstore_cpu_percent", "CPU, 100 = one core.", value=self._usage.cpu_percent)
        yield GaugeMetricFamily(
            "jetstore_connections", "Open client connections.", value=len(self._source.clients.connections)
        )
        yield GaugeMetricFamily("jetstore_subscriptions", "Subscriptions.", value=self._source.subscriptions())
        for name, text, value in (
            ("connections_opened", "Client connections ever.", traffic.total_connections),
            ("received_messages", "Messages published by clients.", traffic.in_msgs),
            ("received_bytes", "Their bytes.", traffic.in_bytes),
            ("sent_messages", "Messages sent to clients.", traffic.out_msgs),
            ("sent_bytes", "Their bytes.", traffic.out_bytes),
            ("slow_consumers", "Connections closed for not reading.", traffic.slow_consumers),
            ("stale_connections", "Connections closed for not answering.", traffic.stale_connections),
        ):
            yield CounterMetricFamily(f"jetstore_{name}", text, value=value)

    def _jetstream(self) -> Iterable[Metric]:
        assert self._source.jetstream is not None
        info, api = self._source.jetstream_totals()
        for name, text, value in (
            ("streams", "Streams.", info.streams),
            ("consumers", "Consumers.", info.consumers),
            ("memory_used_bytes", "Bytes in memory streams.", info.memory),
            ("storage_used_bytes", "Bytes in file streams.", info.storage),
            ("api_inflight", "API requests that wait.", api.inflight),
        ):
            yield GaugeMetricFamily(f"jetstore_jetstream_{name}", text, value=value)
        yield CounterMetricFamily("jetstore_jetstream_api_requests", "API requests.", value=api.total)
        yield CounterMetricFamily(
            "jetstore_jetstream_api_errors", "API requests answered with an error.", value=api.errors
        )
        if self._source.engine is not None:
            yield from _engine_families(self._source.engine())
        if self._source.cluster is not None:
            yield from cluster_families(self._source.cluster())
        yield from self._stream_families()
        yield from self._consumer_families()

    def _stream_families(self) -> Iterable[Metric]:
        columns = {
            name: GaugeMetricFamily(f"jetstore_stream_{name}", text, labels=["account", "stream"])
            for name, text in (
                ("messages", "Stored messages."),
                ("bytes", "Stored bytes."),
                ("first_seq", "First sequence."),
                ("last_seq", "Last sequence."),
                ("subjects", "Subjects."),
                ("consumers", "Consumers."),
            )
        }
        for account, info in self._streams:
            labels, state = [account, info.config.name], info.state
            values = (
                state.messages,
                state.bytes,
                state.first_seq,
                state.last_seq,
                state.num_subjects,
                state.consumer_count,
            )
            for family, value in zip(columns.values(), values, strict=True):
                family.add_metric(labels, value)
        yield from columns.values()

    def _consumer_families(self) -> Iterable[Metric]:
        columns = {
            name: GaugeMetricFamily(f"jetstore_consumer_{name}", text, labels=["account", "stream", "consumer"])
            for name, text in (
                ("delivered_stream_seq", "Highest stream sequence delivered."),
                ("delivered_consumer_seq", "Deliveries."),
                ("ack_floor_stream_seq", "All at or below are acknowledged."),
                ("num_pending", "Messages still to deliver."),
                ("num_ack_pending", "Deliveries not acknowledged."),
                ("num_redelivered", "Messages delivered more than once."),
                ("num_waiting", "Pull requests that wait."),
            )
        }
        for account, info in self._consumers:
            labels = [account, info.stream_name, info.name]
            values = (
                info.delivered.stream_seq,
                info.delivered.consumer_seq,
                info.ack_floor.stream_seq,
                info.num_pending,
                info.num_ack_pending,
                info.num_redelivered,
                info.num_waiting,
            )
            for family, value in zip(columns.values(), values, strict=True):
                family.add_metric(labels, value)
        yield from columns.values()


async def _assets(source: MonitorSource) -> tuple[Streams, Consumers]:
    streams: Streams = []
    consumers: Consumers = []
    names = [
        (each.facts.account, each.jetstream, config.name)
        for each in source.of_jetstream()
        if each.jetstream is not None
        for config in each.jetstream.stream_configs()
    ]
    for account, jetstream, stream in names[:ASSETS_MAX]:
        try:
            streams.append((account, await jetstream.stream_info(stream, StreamInfoRequest())))
            room = ASSETS_MAX - len(consumers)
            for name in jetstream.consumer_names(stream)[:room]:
                consumers.append((account, await jetstream.consumer_info(stream, name)))
        except NOT_SHOWN:
            continue
        await asyncio.sleep(0)
    return streams, consumers


async def metrics(source: MonitorSource, usage: Usage) -> bytes:
    """The page in Prometheus' text format."""
    streams, consumers = await _assets(source)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ScrapeCollector(source, usage, streams, consumers))
    return generate_latest(registry)


def _engine_families(engine: EngineCounters) -> Iterable[Metric]:
    for name, text, total in (
        ("journal_blocks", "Journal blocks written: one write and one sync each.", engine.journal_blocks),
        ("journal_records", "Records in them.", engine.journal_records),
        ("checkpoints", "Checkpoints made durable.", engine.checkpoints),
        ("publishes", "Messages proposed to streams.", engine.publishes),
        (
            "publish_entries",
            "Raft entries they travelled in; publishes / entries is the batch size.",
            engine.publish_entries,
        ),
        ("scrub_bytes", "Stored bytes read again in the background.", engine.scrub_bytes),
        ("scrub_rounds", "Rounds over the whole store.", engine.scrub_rounds),
        ("scrub_found", "Damaged places that the scrub met, each once a round.", engine.scrub_found),
        ("index_rebuilds", "Subject indexes made again from the messages.", engine.index_rebuilds),
    ):
        yield CounterMetricFamily(f"jetstore_{name}", text, value=total)
    for name, text, value in (
        ("journal_used_bytes", "Journal files that are still needed.", engine.journal_used_bytes),
        ("journal_max_bytes", "What they may take.", engine.journal_max_bytes),
        ("accepts_publishes", "1 while disk and journal have room for publishes.", int(engine.accepts_publishes)),
        ("damaged_places", "Places in stored files that are known to be damaged.", engine.damaged_places),
        ("encrypting", "1 while what was stored before there was this key is being encrypted.", int(engine.encrypting)),
    ):
        yield GaugeMetricFamily(f"jetstore_{name}", text, value=value)
    yield _histogram(
        "jetstore_journal_block_seconds",
        "How long writing and syncing a journal block took, measured by the writer.",
        engine.sync_buckets_s,
        engine.sync_histogram,
        engine.sync_seconds_total,
    )
    yield _histogram(
        "jetstore_loop_lag_seconds",
        "How late the event loop ran a timer.",
        engine.lag_buckets_s,
        engine.lag_histogram,
        engine.lag_seconds_total,
    )


def _histogram(
    name: str, text: str, bounds: Sequence[float], counts: Sequence[int], total: float
) -> HistogramMetricFamily:
    buckets = []
    cumulative = 0
    for bound, count in zip(bounds, counts, strict=True):
        cumulative += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), cumulative))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)
