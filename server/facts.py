"""What monitoring is shown of the engine and of the configuration, gathered where both are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.node.group_commit import SYNC_BUCKETS_S
from jetstore.node.loop_lag import BUCKETS_S
from jetstore.node.node import Node
from server.config.options import Options
from server.monitor.cluster_ports import ClusterFacts
from server.monitor.ports import EngineCounters

if TYPE_CHECKING:
    from jetstore.node.cluster import Cluster


def cluster_facts(options: Options, cluster: Cluster) -> ClusterFacts:
    """What monitoring shows of the ``cluster`` block."""
    given = options.cluster
    return ClusterFacts(
        name=options.cluster_name,
        host=given.host,
        port=cluster.port,
        auth_timeout_ns=given.timeout_ns,
        urls=tuple(f"{route.host}:{route.port}" for route in given.routes),
    )


def engine_counters(node: Node) -> EngineCounters:
    """The engine's counters now."""
    commit, lag, status = node.commit, node.lag, node.commit.status
    return EngineCounters(
        journal_blocks=commit.blocks,
        journal_records=commit.records,
        journal_used_bytes=status.used_bytes if status else 0,
        journal_max_bytes=node.limits.journal_bytes_max,
        checkpoints=node.storage.checkpoints_total,
        accepts_publishes=node.admission() is None,
        publishes=sum(group.ingest.messages_total for group in node.streams.values()),
        publish_entries=sum(group.ingest.entries_total for group in node.streams.values()),
        sync_buckets_s=SYNC_BUCKETS_S,
        sync_histogram=commit.sync_histogram,
        sync_seconds_total=commit.sync_seconds_total,
        lag_buckets_s=BUCKETS_S,
        lag_histogram=lag.histogram,
        lag_seconds_total=lag.seconds_total,
        scrub_bytes=node.scrub.bytes_total,
        scrub_rounds=node.scrub.rounds_total,
        scrub_found=node.scrub.found_total,
        encrypting=node.sealing.is_due,
        damaged_places=len(node.scrub.damaged_copies) + sum(len(group.damage) for group in node.streams.values()),
        index_rebuilds=sum(group.index_rebuilds for group in node.streams.values()),
    )
