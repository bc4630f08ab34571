"""Answers of the API table compared with those of nats-server, recorded in ``tests/golden/jsapi/answers.json``.

Without a nats-server only the recorded answers are used. Record again with
``python tests/server/jsapi/record_answers.py`` (needs one on PATH or beside the interpreter).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_oracle import ask_oracle, ask_port, oracle_binary
from api_scenario import requests
from jsapi_fakes import Rig

from jepsen.real.process import JETSTORE, ServerProcess

GOLDEN = Path(__file__).parents[2] / "golden" / "jsapi" / "answers.json"
UNSUPPORTED = "is not supported by this version of jetstore"

DEVIATIONS = {
    # start of "subject body" → why, and our err_code (0 = accepted)
    '$JS.API.STREAM.CREATE.A {"name":"A"} {}': ("a second document is refused instead of merged", 10025),
    '$JS.API.STREAM.CREATE.A {"name":"A"} 5': ("worded differently", 10025),
    '$JS.API.CONSUMER.CREATE.A {"stream_name":"A","config":{"opt_start_time":"2024-02-20T01:00:00.123456+02:00"': (
        "times are shown in UTC",
        0,
    ),
    "$JS.API.CONSUMER.CREATE.S.xxxxxxxxxx": ("a long name is refused as such, not as a failing store", 10102),
    '$JS.API.CONSUMER.CREATE.S.eph {"stream_name": "S", "config": {}, "action": "create"}': (
        "the same request twice is idempotent for ephemerals too",
        0,
    ),
    '$JS.API.CONSUMER.CREATE.S.eph {"stream_name": "S", "config": {"durable_name"': (
        "made durable, it loses the ephemeral's inactive threshold",
        0,
    ),
    '$JS.API.STREAM.MSG.DELETE.A {"seq":9}': ("a missing message is always 10043", 10043),
}
VOLATILE = ("created", "ts", "name", "api", "cluster", "state", "delivered", "ack_floor", "paused", "pause_remaining")


def comparable(reply: Any) -> Any:
    """What of an answer must be equal: errors whole, configurations without what names the server."""
    if not isinstance(reply, dict) or "error" in reply:
        return reply
    kept = {key: value for key, value in reply.items() if key not in VOLATILE}
    if "consumers" in kept:
        # Ephemeral consumers come and go by the clock.
        kept = {key: value for key, value in kept.items() if key not in ("consumers", "total", "offset")}
    if isinstance(kept.get("config"), dict):
        config = dict(kept["config"])
        metadata = {k: v for k, v in config.get("metadata", {}).items() if k not in ("_nats.ver", "_nats.level")}
        config["metadata"] = metadata
        if len(config.get("name", "")) == 8:
            del config["name"]
        kept["config"] = config
    return kept


async def ask_ours() -> list[Any]:
    """Our answers to the scenario; None where there is no reply."""
    rig = Rig()
    replies: list[Any] = []
    for subject, body in requests():
        before = len(rig.outlet.sent)
        rig.outlet.send((subject, b"inbox", body.encode()))
        await rig.settle()
        sent = rig.outlet.sent[before:]
        if not sent or sent[0][1].startswith(b"NATS/1.0 503"):
            replies.append(None)
        else:
            replies.append(json.loads(sent[0][2]))
    await rig.api.close()
    return replies


def differences(theirs: list[Any], ours: list[Any]) -> list[str]:
    """One line per answer that differs without a reason."""
    found = []
    was_unsupported = False
    for (subject, body), their, our in zip(requests(), theirs, ours, strict=True):
        asked = f"{subject} {body}"[:200]
        reason = next((reason for start, reason in DEVIATIONS.items() if asked.startswith(start)), None)
        if reason is not None:
            err_code = our.get("error", {}).get("err_code", 0) if our else -1
            if err_code != reason[1]:
                found.append(f"{asked}: {err_code} instead of the deviating {reason[1]}")
            continue
        if was_unsupported and ".DELETE." in subject:
            was_unsupported = False
            continue
        was_unsupported = bool(our) and UNSUPPORTED in our.get("error", {}).get("description", "")
        if our and UNSUPPORTED in our.get("error", {}).get("description", ""):
            if our["error"]["err_code"] not in (10052, 10012, 10064, 10062):
                found.append(f"{asked}: refused as unsupported with {our['error']}")
            continue
        if comparable(their) != comparable(our):
            found.append(f"{asked}\n   theirs {json.dumps(comparable(their))}\n   ours   {json.dumps(comparable(our))}")
    return found


def test_answers_equal_the_recorded_ones() -> None:
    recorded = json.loads(GOLDEN.read_text())
    assert [tuple(entry["asked"]) for entry in recorded] == [(s, b[:200]) for s, b in requests()]
    ours = asyncio.run(ask_ours())
    found = differences([entry["reply"] for entry in recorded], ours)
    assert not found, f"{len(found)} differ:\n" + "\n".join(found)


def test_scenario_covers_enough() -> None:
    recorded = json.loads(GOLDEN.read_text())
    errors = {entry["reply"]["error"]["err_code"] for entry in recorded if entry["reply"] and "error" in entry["reply"]}
    assert len(recorded) >= 300
    assert len(errors) >= 50


@pytest.mark.oracle
@pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand")
def test_recorded_answers_are_nats_servers(tmp_path: Path) -> None:
    recorded = json.loads(GOLDEN.read_text())
    silent = [entry["reply"] is None for entry in recorded]
    live = asyncio.run(ask_oracle(requests(), tmp_path, silent))
    changed = [
        f"{entry['asked']}\n   recorded {comparable(entry['reply'])}\n   live     {comparable(reply)}"
        for entry, reply in zip(recorded, live, strict=True)
        if comparable(entry["reply"]) != comparable(reply)
    ]
    assert not changed, "\n".join(changed)


@pytest.mark.real
def test_a_running_server_gives_the_recorded_answers(start_server: Callable[..., ServerProcess]) -> None:
    recorded = json.loads(GOLDEN.read_text())
    silent = [entry["reply"] is None for entry in recorded]
    ours = asyncio.run(ask_port(start_server(JETSTORE).port, requests(), silent))
    found = differences([entry["reply"] for entry in recorded], ours)
    assert not found, f"{len(found)} differ:\n" + "\n".join(found)
