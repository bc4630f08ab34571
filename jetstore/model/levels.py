"""What this server tells clients about its abilities.

Clients switch features on the version string, so it names the nats-server whose surface we follow; the API level
tells which JetStream features exist and is therefore our own honest figure.
"""

from __future__ import annotations

NATS_VERSION = "2.15.1"
"""The nats-server version whose protocol and API this build follows."""

API_LEVEL = 4
"""Highest JetStream API level whose features work here, but for those that are refused by name.

1: message TTL, delete markers, consumer pause, priority groups. 2: atomic batches, counters, schedules. 3: nothing.
4: fast batches, consumer reset; the acknowledgement policy ``flow_control``."""


def consumer_level(*, is_paused: bool, has_priority: bool, has_flow: bool = False) -> str:
    """The API level that a consumer's configuration needs, as its metadata says it. ``is_paused``: until any time;
    ``has_flow``: flow control acknowledges."""
    if has_flow:
        return "4"
    return "1" if is_paused or has_priority else "0"
