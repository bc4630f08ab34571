"""Links and Raft groups as metric families."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from server.monitor.cluster_ports import ClusterCounters

ROLES = ("leader", "follower", "pre-candidate", "candidate")


def cluster_families(cluster: ClusterCounters) -> Iterable[Metric]:
    """All of them."""
    yield from _link_families(cluster)
    yield from _raft_families(cluster)


def _link_families(cluster: ClusterCounters) -> Iterable[Metric]:
    gauges = {
        name: GaugeMetricFamily(f"jetstore_link_{name}", text, labels=["node"])
        for name, text in (
            ("up", "1 while there is a link to that node."),
            ("rtt_seconds", "Round trip of the last ping on it."),
            ("pending_bytes", "Written and not taken by the network yet."),
            ("alarm", "1 if that node has an old or cloned disk: nothing it says is counted."),
        )
    }
    counters = {
        name: CounterMetricFamily(f"jetstore_link_{name}", text, labels=["node"])
        for name, text in (
            ("received_bytes", "Bytes of the connections that are open now."),
            ("sent_bytes", "Bytes of the connections that are open now."),
            ("received_messages", "Raft messages."),
            ("sent_messages", "Raft messages."),
            ("dropped_messages", "Raft messages not sent: no link, or too much unsent."),
            ("connects", "Connections made or taken."),
        )
    }
    for peer in cluster.peers:
        values = (int(peer.is_up), peer.rtt_s, peer.pending_bytes, int(peer.has_alarm))
        for gauge, value in zip(gauges.values(), values, strict=True):
            gauge.add_metric([peer.name], value)
        totals = (
            peer.in_bytes,
            peer.out_bytes,
            peer.messages_in,
            peer.messages_out,
            peer.messages_dropped,
            peer.connects,
        )
        for counter, total in zip(counters.values(), totals, strict=True):
            counter.add_metric([peer.name], total)
    yield from gauges.values()
    yield from counters.values()
    refused = CounterMetricFamily("jetstore_link_refused", "Link attempts refused.", labels=["reason"])
    for reason, count in sorted(cluster.refused.items()):
        refused.add_metric([reason], count)
    yield refused
    yield CounterMetricFamily("jetstore_link_bad_frames", "Frames that could not be read.", value=cluster.bad_frames)


def _raft_families(cluster: ClusterCounters) -> Iterable[Metric]:
    roles = Counter(group.role for group in cluster.groups)
    by_role = GaugeMetricFamily("jetstore_raft_groups", "Groups with a member here, by its role.", labels=["role"])
    for role in ROLES:
        by_role.add_metric([role], roles[role])
    yield by_role
    yield GaugeMetricFamily(
        "jetstore_raft_groups_leaderless",
        "Groups that know no leader.",
        value=sum(not group.leader for group in cluster.groups),
    )
    yield GaugeMetricFamily(
        "jetstore_raft_groups_quiet",
        "Groups that nothing happens in: no ticks, no heartbeats.",
        value=sum(group.is_quiet for group in cluster.groups),
    )
    term = GaugeMetricFamily("jetstore_raft_term", "Term: the number of elections, about.", labels=["group"])
    committed = GaugeMetricFamily("jetstore_raft_committed_index", "Last entry known committed.", labels=["group"])
    applied = GaugeMetricFamily("jetstore_raft_applied_index", "Last entry applied here.", labels=["group"])
    lag = GaugeMetricFamily("jetstore_raft_lag_entries", "Said by leaders.", labels=["group", "node"])
    for group in cluster.groups:
        term.add_metric([group.name], group.term)
        committed.add_metric([group.name], group.committed_index)
        applied.add_metric([group.name], group.applied_index)
        for node, entries in sorted(group.lags.items()):
            lag.add_metric([group.name, node], entries)
    yield from (term, committed, applied, lag)
    yield CounterMetricFamily(
        "jetstore_raft_stray_messages", "Messages nobody here is to get.", value=cluster.stray_messages
    )
    yield CounterMetricFamily(
        "jetstore_raft_catch_ups", "States installed that came from a peer.", value=cluster.catch_ups
    )
