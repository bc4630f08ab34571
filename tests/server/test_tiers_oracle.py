"""What the claims of accounts allow of JetStream: by tier, in memory or on disk alone; beside a nats-server's."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import nats
import pytest
from claims_maker import FREE, USER, Json, Key, account_key, operator_key, token, user_key
from system_script import oracle_binary, running
from test_system_oracle import get

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

OP, U, SYS = operator_key(), user_key("u"), account_key("sys")
R1: Json = {
    "mem_storage": 2000,
    "disk_storage": 3000,
    "streams": 2,
    "consumer": 1,
    "max_ack_pending": 10,
    "mem_max_stream_bytes": 1500,
    "disk_max_stream_bytes": 2500,
}
FLAT: Json = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
LIMITS: dict[str, Json] = {
    "tiers": {"tiered_limits": {"R1": R1, "R3": {"disk_storage": 5000, "streams": -1, "consumer": -1}}},
    "three": {"tiered_limits": {"R3": {"disk_storage": 5000, "streams": -1, "consumer": -1}}},
    "mixed": {"disk_storage": 100, "streams": 1, "tiered_limits": {"R1": {**R1, "streams": 5, "consumer": -1}}},
    "required": {"tiered_limits": {each: {**FLAT, "max_bytes_required": True} for each in ("R1", "R3")}},
    "narrow": {**FLAT, "mem_max_stream_bytes": 1500, "disk_max_stream_bytes": 2000},
    "full": {**FLAT, "disk_storage": 3000, "streams": 0},
    "ondisk": {"tiered_limits": {"R1": {"disk_storage": 3000, "streams": 2, "consumer": 1}}},
    "few": {"tiered_limits": {"R1": {"disk_storage": 3000, "mem_storage": -1}}},
    "empty": {"tiered_limits": {"R1": {}}},
    "strange": {"tiered_limits": {"R1": FLAT, "Other": FLAT}},
    "disk": {**FLAT, "mem_storage": 0},
    "memory": {**FLAT, "disk_storage": 0, "mem_storage": 2000},
    "neither": {"mem_storage": 0, "disk_storage": 0, "streams": -1},
}
KEYS = {name: account_key(name) for name in LIMITS}


def account(key: Key, limits: Json) -> str:
    return token("account", OP, key, {"limits": {**FREE, **limits}})


CONFIGURATION = f"""
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{{{ store_dir: "{{directory}}/data", max_mem: 1MB, max_file: 1MB }}}}
operator: "{token("operator", OP, OP, {"system_account": SYS.public})}"
resolver: MEMORY
resolver_preload {{{{
  {SYS.public}: "{account(SYS, {})}"
{chr(10).join(f'  {KEYS[name].public}: "{account(KEYS[name], limits)}"' for name, limits in LIMITS.items())}
}}}}
"""


def asked(verb: str, name: str, **fields: Json) -> tuple[str, Json]:
    return f"$JS.API.STREAM.{verb}.{name}", {"name": name, "subjects": [f"{name.lower()}.>"], **fields}


def consumer(stream: str, name: str, **fields: Json) -> tuple[str, Json]:
    return f"$JS.API.CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": {"name": name, **fields}}


STEPS: list[tuple[str, Json]] = [
    ("$JS.API.INFO", None),
    asked("CREATE", "R", num_replicas=3),
    asked("CREATE", "R", num_replicas=2),
    asked("CREATE", "F", max_bytes=2501),
    asked("CREATE", "F", max_bytes=1000),
    asked("CREATE", "M", storage="memory", max_bytes=1501),
    asked("CREATE", "M", storage="memory"),
    asked("CREATE", "G", max_bytes=2100),
    asked("CREATE", "G", max_bytes=2000),
    asked("UPDATE", "F", num_replicas=3),
    asked("UPDATE", "F", max_bytes=2600),
    asked("UPDATE", "F", max_bytes=-1),
    asked("UPDATE", "M", storage="memory", max_msgs=3),
    consumer("F", "c", max_ack_pending=11),
    consumer("F", "c", durable_name="c"),
    consumer("F", "d", durable_name="d"),
    ("f.x", 700),
    ("f.x", 1400),
    ("f.x", 1000),
    ("m.x", 700),
    ("m.x", 1400),
    ("m.x", 100),
    ("$JS.API.INFO", None),
    ("$JS.API.STREAM.DELETE.F", None),
    ("$JS.API.STREAM.DELETE.M", None),
    asked("CREATE", "H"),
    ("$JS.API.INFO", None),
]
KEPT = ("memory", "storage", "reserved_memory", "reserved_storage", "streams", "consumers", "limits", "tiers")


def comparable(subject: str, answer: Json) -> Json:
    """What is told of a publish, a refusal, what there is; of a consumer how many may be unacknowledged."""
    if "error" in answer or not subject.startswith("$JS.API."):
        return answer.get("error", answer)
    if "CONSUMER" in subject:
        return answer["config"].get("max_ack_pending")
    return {key: answer[key] for key in KEPT if key in answer}


def of_pages(jsz: Json, accountz: Json) -> Json:
    shown = [
        {key: detail[key] for key in (*KEPT, "accounts") if key in detail} for detail in jsz.get("account_details", ())
    ]
    return shown, accountz["account_detail"]["jetstream_enabled"]


async def answers(directory: Path, *command: str) -> list[Json]:
    found: list[Json] = []
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, http):
        for name, key in KEYS.items():
            text = token("user", key, U, USER)
            client = await nats.connect(
                f"nats://127.0.0.1:{port}",
                user_jwt_cb=lambda text=text: text.encode(),
                signature_cb=lambda nonce: U.sign(nonce).encode(),
            )
            for number, (subject, body) in enumerate(STEPS):
                data = b"x" * body if isinstance(body, int) else b"" if body is None else json.dumps(body).encode()
                try:
                    answer = await client.request(subject, data, timeout=5)
                    said = comparable(subject, json.loads(answer.data))
                except nats.errors.NoRespondersError:
                    said = "nobody"
                found.append((name, number, subject, said))
            pages = [await asyncio.to_thread(get, http, path + key.public) for path in ("/jsz?acc=", "/accountz?acc=")]
            found.append((name, -1, "pages", of_pages(*(json.loads(body) for _, body in pages))))
            await client.close()
    return found


def test_tiers_and_accounts_with_one_kind_of_storage_are_bound_as_by_nats_server(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()

    async def both() -> tuple[list[Json], list[Json]]:
        binary = oracle_binary()
        assert binary is not None
        theirs = await answers(tmp_path / "theirs", binary)
        return theirs, await answers(tmp_path / "ours", sys.executable, "-m", "server.cli.main", "serve")

    theirs, ours = asyncio.run(both())
    differing = [(there, here[-1]) for there, here in zip(theirs, ours, strict=True) if there != here]
    assert differing == []
