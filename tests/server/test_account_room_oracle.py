"""What accounts, and all of them together, may store: publishes beside a nats-server's, and what is left afterwards."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import nats
import pytest
from system_script import Json, oracle_binary, running

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

CONFIGURATION = """
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{ store_dir: "{directory}/data", max_mem: 1MB, max_file: 1MB }}
accounts {{
  $SYS {{ users [ {{user: admin, password: x}} ] }}
  A {{ jetstream: {{max_mem: 2000, max_file: 3000}}, users [ {{user: a, password: x}} ] }}
  B {{ jetstream: {{max_bytes_required: true, disk_max_stream_bytes: 1000, mem_max_stream_bytes: 500, max_streams: 2,
       max_ack_pending: 10}}, users [ {{user: b, password: x}} ] }}
  C {{ jetstream: enabled, users [ {{user: c, password: x}} ] }}
}}"""


def stream(name: str, **fields: Json) -> Json:
    return {"name": name, "subjects": [f"{name.lower()}.>"], **fields}


def asked(verb: str, config: Json) -> tuple[str, Json, Json]:
    return f"$JS.API.STREAM.{verb}.{config['name']}", config, None


def steps(user: str) -> list[tuple[str, Json, Json]]:
    """Subject, body (a number: so many bytes), headers."""
    if user == "a":
        found: list[tuple[str, Json, Json]] = []
        for name, storage in (("M", "memory"), ("F", "file")):
            subject = f"{name.lower()}.x"
            found += [asked("CREATE", stream(name, storage=storage, allow_atomic=True))]
            found += [(subject, 700, {"Nats-Msg-Id": f"{number}"}) for number in range(5)]
            found += [(subject, 900, {"Nats-Msg-Id": "1"}), (subject, 1, None), ("$JS.API.INFO", None, None)]
            batch = {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1"}
            found += [(subject, 900, batch), (subject, 4000, None)]
            found += [(f"$JS.API.STREAM.PURGE.{name}", {"keep": 1}, None), (subject, 700, None), (subject, 900, batch)]
            found += [asked("UPDATE", stream(name, storage=storage, allow_atomic=True, max_msgs=2))]
            found += [(subject, 900, None)] * 2
            found += [asked("UPDATE", stream(name, storage=storage, allow_atomic=True, max_bytes=5000))]
            found += [asked("CREATE", stream("T", storage=storage))]
            found += [("t.x", 1500, None), ("t.x", 400, None), ("$JS.API.INFO", None, None)]
            found += [("$JS.API.STREAM.DELETE.T", None, None), (subject, 300, None), ("$JS.API.INFO", None, None)]
        return found
    if user == "b":
        return [
            asked("CREATE", stream("S")),
            asked("CREATE", stream("S", max_bytes=1001)),
            asked("CREATE", stream("S", max_bytes=501, storage="memory")),
            asked("CREATE", stream("S", max_bytes=1000)),
            asked("UPDATE", stream("S", max_bytes=1001)),
            asked("UPDATE", stream("S")),
            asked("CREATE", stream("T", max_bytes=500, storage="memory")),
            asked("CREATE", stream("U", max_bytes=500, storage="memory")),
            ("$JS.API.CONSUMER.CREATE.S.c", {"stream_name": "S", "config": {"name": "c", "max_ack_pending": 11}}, None),
            ("$JS.API.CONSUMER.CREATE.S.c", {"stream_name": "S", "config": {"name": "c"}}, None),
            ("$JS.API.INFO", None, None),
        ]
    return [
        asked("CREATE", stream("B")),
        ("b.x", 500_000, None),
        ("b.x", 500_000, None),
        ("b.x", 100_000, None),
        ("b.x", 10, None),
        ("$JS.API.STREAM.PURGE.B", None, None),
        ("b.x", 10, None),
        ("$JS.API.INFO", None, None),
    ]


def comparable(subject: str, answer: Json) -> Json:
    """What is told of a publish, a refusal, or how much there is."""
    if not subject.startswith("$JS.API."):
        return answer
    if "error" in answer:
        return answer["error"]
    kept = ("memory", "storage", "reserved_memory", "reserved_storage", "streams", "consumers", "limits", "purged")
    return {key: answer[key] for key in kept if key in answer}


async def answers(directory: Path, *command: str) -> list[Json]:
    found: list[Json] = []
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, _):
        for user in "abc":
            client = await nats.connect(f"nats://{user}:x@127.0.0.1:{port}")
            for number, (subject, body, headers) in enumerate(steps(user)):
                data = b"x" * body if isinstance(body, int) else b"" if body is None else json.dumps(body).encode()
                answer = await client.request(subject, data, timeout=5, headers=headers)
                found.append((user, number, subject, comparable(subject, json.loads(answer.data))))
            await client.close()
    return found


def test_publishes_beyond_what_an_account_or_the_server_may_store_are_refused(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()

    async def both() -> tuple[list[Json], list[Json]]:
        binary = oracle_binary()
        assert binary is not None
        theirs = await answers(tmp_path / "theirs", binary)
        return theirs, await answers(tmp_path / "ours", sys.executable, "-m", "server.cli.main", "serve")

    theirs, ours = asyncio.run(both())
    assert all(f'"err_code": {code},' in json.dumps(theirs) for code in (10002, 10023, 10028, 10047, 10113, 10122))
    differing = [(there, here) for there, here in zip(theirs, ours, strict=True) if there != here]
    assert differing == []
