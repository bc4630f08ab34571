"""The requests whose answers are compared with nats-server's: one a line, ``subject body``, in order.

Most stand in ``tests/golden/jsapi/*.txt``, where ``$L<n>`` stands for n times ``x``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[2] / "golden" / "jsapi"


class _Script:
    """Collects consumer requests."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def line(self, text: str) -> None:
        self.lines.append(text)

    def named(self, config: dict[str, Any], stream: str = "S", name: str = "", **fields: Any) -> None:
        self.count += 1
        body = json.dumps({"stream_name": stream, "config": config, **fields})
        self.line(f"CONSUMER.CREATE.{stream}.{name or f'c{self.count}'} {body}")

    def unnamed(self, config: dict[str, Any], stream: str = "S", **fields: Any) -> None:
        self.line(f"CONSUMER.CREATE.{stream} " + json.dumps({"stream_name": stream, "config": config, **fields}))

    def durable(self, config: dict[str, Any], name: str, stream: str = "S") -> None:
        self.line(f"CONSUMER.DURABLE.CREATE.{stream}.{name} " + json.dumps({"stream_name": stream, "config": config}))


SECOND = 1_000_000_000
YEAR = "2024-01-01T00:00:00Z"


def _names(script: _Script) -> None:
    c, e, d = script.named, script.unnamed, script.durable
    c({"ack_policy": "explicit"})
    c({"ack_policy": "explicit", "durable_name": "c2"})
    c({"ack_policy": "explicit", "durable_name": "other"})
    e({"durable_name": "x"})
    e({"name": "nm"})
    d({}, "dd")
    d({"durable_name": "de"}, "dd")
    d({"durable_name": "dd", "ack_policy": "all"}, "dd")
    c({}, name="a*")
    c({}, name="a/b")
    c({}, name="x" * 256)
    d({"durable_name": "x" * 256}, "x" * 256)
    e({"name": "a.b"})
    e({"name": "a b"})
    e({"name": "a/b"})
    c({"description": "x" * 4097})


def _starts(script: _Script) -> None:
    for policy in ("all", "last", "new", "by_start_sequence", "by_start_time", "last_per_subject"):
        filtered = {"deliver_policy": policy, "filter_subject": "s.q"}
        script.named({"deliver_policy": policy})
        script.named({**filtered, "opt_start_seq": 5})
        script.named({**filtered, "opt_start_time": YEAR})
        script.named({**filtered, "opt_start_seq": 5, "opt_start_time": YEAR})
        script.named(filtered)


def _values(script: _Script) -> None:
    c = script.named
    explicit: dict[str, Any] = {"ack_policy": "explicit"}
    push: dict[str, Any] = {"deliver_subject": "d"}
    steps = [SECOND, 2 * SECOND]
    for config in (
        {"ack_wait": -1},
        {"ack_wait": -1, **explicit},
        {"max_deliver": -5},
        {"backoff": [-1]},
        {"backoff": steps, "max_deliver": 1, **explicit},
        {"backoff": steps, "max_deliver": 2, **explicit},
        {"backoff": steps, "ack_wait": 5 * SECOND, **explicit},
        {"backoff": [SECOND]},
        {"filter_subject": "s.a", "filter_subjects": ["s.b"]},
        {"filter_subjects": [""]},
        {"filter_subjects": ["s.a", "s.*"]},
        {"filter_subjects": ["s.a", "s.a"]},
        {"filter_subjects": ["s.a.*", "s.*.b"]},
        {"filter_subject": "a..b"},
        {"filter_subjects": ["a..b"]},
        {"filter_subject": "zzz"},
        {"filter_subject": "s.>"},
        {"filter_subject": ">"},
        {"filter_subjects": ["s.>"]},
        {"rate_limit_bps": 5},
        {"rate_limit_bps": 5, **push},
        {"sample_freq": "x"},
        {"sample_freq": "-5"},
        {"sample_freq": "50%"},
        {"sample_freq": "150"},
        {"max_waiting": -1},
        {"max_waiting": 5, **push},
        {"max_waiting": 5},
        {"max_ack_pending": -1, **explicit},
        {"max_ack_pending": -5, **explicit},
        {"max_ack_pending": 5},
        {"max_ack_pending": 5, **push},
        {"flow_control": True},
        {"flow_control": True, **push},
        {"flow_control": True, "idle_heartbeat": SECOND, **push},
        {"idle_heartbeat": SECOND},
        {"idle_heartbeat": 1000, **push},
        {"idle_heartbeat": -1, **push},
        {"max_batch": -1},
        {"max_expires": 1000},
        {"max_expires": -1},
        {"max_bytes": -1},
        {"max_batch": 5, "max_expires": 1_000_000, "max_bytes": 5},
        {"max_batch": 5, **push},
        {"deliver_subject": "d.*"},
        {"deliver_subject": "d..x"},
        {"deliver_subject": "s.a"},
        {"deliver_subject": "a b"},
        {"deliver_group": "g"},
        {"deliver_group": "g", **push},
        {"inactive_threshold": -5},
        {"num_replicas": -1},
        {"num_replicas": 3},
        {"direct": True},
        {"direct": True, "ack_policy": "explicit", **push},
        {"direct": True, **push},
        {"metadata": {"k": "x" * 131072}},
        {"metadata": {"_nats.ver": "1", "_nats.zz": "1"}},
        {"pause_until": "2999-01-01T00:00:00Z"},
        {"pause_until": "2000-01-01T00:00:00Z"},
        {"priority_groups": ["g"]},
        {"priority_policy": "overflow"},
        {"priority_policy": "overflow", "priority_groups": [""]},
        {"priority_policy": "overflow", "priority_groups": ["a b"]},
        {"priority_timeout": 5},
        {"priority_policy": "overflow", "priority_groups": ["a"], **push},
        {"priority_policy": "overflow", "priority_groups": ["a"]},
        {"ack_policy": "flow_control"},
        {"ack_policy": "flow_control", **push},
    ):
        c(config)
    c({"max_deliver": -5}, pedantic=True)
    c({"backoff": steps, "ack_wait": 5 * SECOND, **explicit}, pedantic=True)
    c({"durable_name": "ephd", "direct": True, **push}, name="ephd")
    c({"durable_name": "slow", "inactive_threshold": 5}, name="slow")
    c({"num_replicas": 1}, "I")
    c({}, "NOPE")
    script.line('CONSUMER.CREATE.S.f1.s.a {"stream_name":"S","config":{"filter_subject":"s.b"}}')
    script.line('CONSUMER.CREATE.S.f2.s.a {"stream_name":"S","config":{"filter_subject":"s.a"}}')
    script.line('CONSUMER.CREATE.S.f3.s.a {"stream_name":"S","config":{"filter_subjects":["s.a"]}}')
    script.line('CONSUMER.CREATE.S.f3.s.a {"stream_name":"S","config":{}}')
    script.line('CONSUMER.CREATE.S.f4 {"stream_name":"S","config":{"name":"zz"}}')
    script.line('CONSUMER.CREATE.S.f5 {"stream_name":"Q","config":{}}')


def _limits(script: _Script) -> None:
    c = script.named
    explicit: dict[str, Any] = {"ack_policy": "explicit"}
    c({"max_ack_pending": 51, **explicit}, "L")
    c({"max_ack_pending": 50, **explicit}, "L", "l1")
    c({"durable_name": "l2", **explicit}, "L", "l2")
    c(explicit, "L")
    c({"inactive_threshold": 200 * SECOND}, "L")
    script.line("CONSUMER.DELETE.L.l1")
    c({"max_ack_pending": -1, **explicit}, "L", "l4")
    c({"durable_name": "l3"}, "L", "l3")
    script.line('STREAM.UPDATE.L {"name":"L","subjects":["l.>"],"consumer_limits":{"max_ack_pending":10}}')
    c({}, "W")
    c({"ack_policy": "all"}, "W")
    c({"deliver_subject": "d"}, "W")
    c({"deliver_policy": "new", **explicit}, "W")
    c({"durable_name": "w1", **explicit}, "W", "w1")
    c(explicit, "W")
    c({"filter_subject": "w.a", **explicit}, "W")
    script.line("CONSUMER.DELETE.W.w1")
    c({"filter_subject": "w.a", "durable_name": "w2", **explicit}, "W", "w2")
    c({"filter_subject": "w.*", **explicit}, "W")
    c({"filter_subject": "w.b", **explicit}, "W")
    c(explicit, "W")
    c({"filter_subject": "w.a", "description": "x", "durable_name": "w2", **explicit}, "W", "w2")


def _updates(script: _Script) -> None:
    base: dict[str, Any] = {"ack_policy": "explicit", "durable_name": "u", "filter_subject": "s.a"}
    script.named(base, name="u")
    for change in (
        {"deliver_policy": "new"},
        {"ack_policy": "all"},
        {"replay_policy": "original"},
        {"idle_heartbeat": SECOND},
        {"flow_control": True},
        {"deliver_subject": "d"},
        {"max_waiting": 5},
        {"mem_storage": True},
        {"deliver_policy": "by_start_sequence", "opt_start_seq": 5},
        {"headers_only": True},
        {"max_deliver": 3},
        {"max_ack_pending": 3},
        {"sample_freq": "5"},
        {"filter_subject": "s.b"},
        {"filter_subject": "", "filter_subjects": ["s.b"]},
        {"description": "z"},
        {"pause_until": "2999-01-01T00:00:00Z"},
        {"inactive_threshold": 5 * SECOND},
        {"metadata": {"a": "b"}},
        {"backoff": [SECOND]},
        {"ack_wait": SECOND},
        {"num_replicas": 1},
        {"direct": True},
        {},
    ):
        script.named({**base, **change}, name="u")
    script.named(base, name="u", action="create")
    script.named({**base, "description": "9"}, name="u", action="create")
    script.named(base, name="u", action="update")
    script.named({**base, "durable_name": "nope"}, name="nope", action="update")
    script.named({}, name="eph", action="create")
    script.named({}, name="eph", action="create")
    script.named({}, name="eph")
    script.named({"durable_name": "eph"}, name="eph")
    script.named({"ack_policy": "none"}, name="u")
    script.named({"durable_name": "p", "deliver_subject": "pp"}, name="p")
    script.named({"durable_name": "p", "deliver_subject": "pq"}, name="p")
    script.named({"durable_name": "p"}, name="p")
    script.named({"durable_name": "p", "deliver_subject": "pq", "rate_limit_bps": 5, "deliver_group": "x"}, name="p")
    script.named({"durable_name": "p", "deliver_subject": "pq", "idle_heartbeat": SECOND}, name="p")


def _recorded(name: str) -> list[str]:
    return (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").split("\n")


def requests() -> list[tuple[str, str]]:
    """All of it: (subject, body)."""
    script = _Script()
    script.line('STREAM.CREATE.S {"name":"S","subjects":["s.>"]}')
    script.line('STREAM.CREATE.W {"name":"W","subjects":["w.>"],"retention":"workqueue"}')
    script.line('STREAM.CREATE.I {"name":"I","subjects":["i.>"],"retention":"interest"}')
    script.line(
        'STREAM.CREATE.L {"name":"L","subjects":["l.>"],"max_consumers":2,'
        '"consumer_limits":{"max_ack_pending":50,"inactive_threshold":100000000000}}'
    )
    for part in (_names, _starts, _values, _limits, _updates):
        part(script)
    lines = [*_recorded("decoding"), *_recorded("streams"), *script.lines, *_recorded("endpoints")]
    scenario = []
    for line in lines:
        subject, _, body = re.sub(r"\$L(\d+)", lambda match: "x" * int(match[1]), line).partition(" ")
        if subject:
            scenario.append(("$JS.API." + subject, body))
    return scenario
