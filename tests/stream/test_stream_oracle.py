"""The same operations given to a real nats-server and to ``Stream``: same answers, same counters, same messages.

One message per entry, random scripts by seed. Left out on purpose: what depends on the order of checks, which is that
of a clustered server here and of a single one there (message ids together with expectations); everything timed; which
of its three errors nats-server's file store gives for deleting what is not there (here always 10043).
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import nats
import pytest
from deep import IS_DEEP
from stream_driver import SECOND, Driver

from jetstore.errors import ApiError
from jetstore.model.requests import MessageGet, PurgeRequest
from jetstore.stream import entries
from jetstore.stream.outcomes import Duplicate

BINARY = shutil.which("nats-server") or shutil.which("nats-server", path=str(Path(sys.executable).parent))
SEEDS = 150 if IS_DEEP else 12
SUBJECTS = ["s.a", "s.b", "s.c.x", "s.c.y"]

pytestmark = [pytest.mark.oracle, pytest.mark.skipif(BINARY is None, reason="no nats-server binary")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("oracle")
    assert BINARY is not None
    command = [BINARY, "-js", "-sd", str(directory), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ports = directory / f"nats-server_{process.pid}.ports"

    async def url() -> str:
        while not ports.exists() or not ports.read_text():
            assert process.poll() is None
            await asyncio.sleep(0)
        return str(json.loads(ports.read_text())["nats"][0])

    try:
        yield asyncio.run(asyncio.wait_for(url(), 20))
    finally:
        process.kill()
        process.wait()


class Oracle:
    """A stream on the real server."""

    def __init__(self, client: Any, name: str) -> None:  # Any: nats-py is not typed strictly
        self.client = client
        self.name = name

    async def api(self, what: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else b""
        answer: dict[str, Any] = json.loads((await self.client.request(f"$JS.API.{what}", data, timeout=5)).data)
        return answer

    async def publish(self, subject: str, headers: dict[str, str], body: str) -> Any:
        answer = await self.client.request(subject, body.encode(), timeout=5, headers=headers or None)
        return shown(json.loads(answer.data))


def shown(answer: dict[str, Any]) -> Any:
    if "error" in answer:
        error = answer["error"]
        return (error["code"], error["err_code"], error["description"])
    return ("duplicate", answer["seq"]) if answer.get("duplicate") else answer["seq"]


def mine(outcome: Any) -> Any:
    if isinstance(outcome, ApiError):
        return (outcome.code, outcome.err_code, outcome.description)
    return ("duplicate", outcome.seq) if isinstance(outcome, Duplicate) else outcome


def draw_config(dice: Random) -> dict[str, Any]:
    choices: dict[str, list[Any]] = {
        "max_msgs": [2, 5, 9],
        "max_bytes": [200, 600],
        "max_msgs_per_subject": [1, 2, 3],
        "max_msg_size": [60, 100],
        "discard": ["new", "old"],
        "first_seq": [5],
    }
    config = {name: dice.choice(choices[name]) for name in dice.sample(sorted(choices), 3)}
    if config.get("discard") == "new" and "max_msgs_per_subject" in config:
        config["discard_new_per_subject"] = dice.random() < 0.5
    config["allow_rollup_hdrs"] = dice.random() < 0.7
    config["allow_msg_ttl"] = dice.random() < 0.5
    config["storage"] = dice.choice(["file", "memory"])
    return config


def draw_headers(dice: Random, config: dict[str, Any]) -> dict[str, str]:
    kind = dice.randrange(12)
    if kind == 0:
        return {"Nats-Msg-Id": dice.choice("ijkl")}
    if kind == 1:
        return {"Nats-Expected-Last-Sequence": dice.choice(["0", "3", "9", "x"])}
    if kind == 2:
        return {"Nats-Expected-Last-Subject-Sequence": dice.choice(["0", "0", "3", "9"])}
    if kind == 3:
        return {
            "Nats-Expected-Last-Subject-Sequence": dice.choice(["0", "4"]),
            "Nats-Expected-Last-Subject-Sequence-Subject": dice.choice(["s.c.*", "s.>", "s.a", "none"]),
        }
    if kind == 4:
        return {"Nats-Rollup": dice.choice(["sub", "SUB", "all", "some"])}
    if kind == 5 and config.get("discard") != "new":
        return {"Nats-Expected-Last-Msg-Id": dice.choice("ijkl")}
    if kind == 6:
        return {"Nats-Expected-Stream": dice.choice(["T", config["name"]])}
    if kind == 7 and config["allow_msg_ttl"]:
        return {"Nats-TTL": dice.choice(["never", "1h", "90", "NEVER", "1s5ms", "bad", "0", "100ms", "-3"])}
    if kind == 8:
        return dice.choice([{"Nats-TTL": "1h"}, {"Nats-Incr": "+1"}, {"Nats-Incr": "x"}, {"Nats-Stream-Source": "X 1"},
                            {"Nats-Expected-Last-Subject-Sequence-Subject": "s.a"}, {"nats-msg-id": "i"}])  # fmt: skip
    return {"Other": "x"} if kind == 9 else {}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_same_as_nats_server(server: str, seed: int) -> None:
    asyncio.run(asyncio.wait_for(compare(server, seed), 60))


async def compare(url: str, seed: int) -> None:
    dice = Random(seed)
    config = draw_config(dice)
    client = await nats.connect(url)
    oracle = Oracle(client, f"ORACLE{seed}")
    try:
        full = {"name": oracle.name, "subjects": ["s.>"]} | config
        created = await oracle.api(f"STREAM.CREATE.{oracle.name}", full)
        while created.get("error", {}).get("err_code") == 10049:  # its file store is still busy deleting the last one
            created = await oracle.api(f"STREAM.CREATE.{oracle.name}", full)
        assert "error" not in created, (created, full)
        storage = config.pop("storage")
        driver = Driver(
            storage=storage, **{"name": oracle.name, "subjects": ("s.>",), "duplicate_window": 120 * SECOND} | config
        )
        script: list[Any] = [full]
        for _ in range(50):
            await step(dice, config | {"storage": storage, "name": oracle.name}, oracle, driver, script)
    finally:
        await oracle.api(f"STREAM.DELETE.{oracle.name}")
        await client.close()


async def step(dice: Random, config: dict[str, Any], oracle: Oracle, driver: Driver, script: list[Any]) -> None:
    kind = dice.choices(["publish", "delete", "purge", "get"], [12, 2, 1, 3])[0]
    if kind == "publish":
        subject, headers = dice.choice(SUBJECTS), draw_headers(dice, config)
        body = "x" * dice.choice([0, 1, 20, 20, 90])
        script.append((subject, headers, body))
        theirs = await oracle.publish(subject, headers, body)
        outcome = driver.publish((subject, headers, body))
        ours = mine(outcome.exceptions.get(0) or outcome.first_seq)
        assert ours == theirs, script
    elif kind == "delete":
        seq = dice.randrange(1, 30)
        script.append(("delete", seq))
        answer = await oracle.api(f"STREAM.MSG.DELETE.{oracle.name}", {"seq": seq})
        outcome = driver.apply(entries.encode_delete(seq))
        assert isinstance(outcome, ApiError) == ("error" in answer), script
        if "error" in answer and config["storage"] == "memory":
            assert mine(outcome) == shown(answer), script
    elif kind == "purge":
        seq = dice.randrange(30)
        requests = [{"filter": "s.c.*"}, {"seq": seq}, {"keep": 2}, {"filter": "s.a", "keep": 1},
                    {"filter": "s.>", "seq": seq}, {}]  # fmt: skip
        request = dice.choice(requests)
        script.append(("purge", request))
        answer = await oracle.api(f"STREAM.PURGE.{oracle.name}", request)
        outcome = driver.apply(entries.encode_purge(PurgeRequest(**request)))
        assert outcome.purged == answer["purged"], script
    else:
        await get(dice, oracle, driver, script)
    info = await oracle.api(f"STREAM.INFO.{oracle.name}", {"deleted_details": True, "subjects_filter": ">"})
    state, theirs = driver.stream.state(), info["state"]
    names: tuple[str, ...] = ("messages", "bytes", "first_seq", "last_seq", "num_subjects", "num_deleted")
    deleted = theirs.get("deleted", [])
    if not theirs["last_seq"]:  # after a purge of a stream that never had a message nats-server shows first_seq 1
        names, deleted = ("messages", "bytes", "last_seq", "num_subjects"), []
    assert {n: getattr(state, n) for n in names} == {n: theirs.get(n, 0) for n in names}, script
    assert driver.stream.log.deleted_seqs(state.num_deleted) == deleted, script
    rows = driver.stream.contents.matching(None)
    assert {subject.decode(): row.messages for subject, row in rows} == (theirs.get("subjects") or {}), script


async def get(dice: Random, oracle: Oracle, driver: Driver, script: list[Any]) -> None:
    request = dice.choice([{"seq": dice.randrange(1, 30)}, {"last_by_subj": dice.choice([*SUBJECTS, "s.c.*", "s.>"])},
                           {"next_by_subj": dice.choice(["s.c.*", "s.a"]), "seq": dice.randrange(0, 20)}])  # fmt: skip
    script.append(("get", request))
    answer = await oracle.api(f"STREAM.MSG.GET.{oracle.name}", request)
    if "error" in answer:
        with pytest.raises(ApiError) as caught:
            driver.stream.get_message(MessageGet(**request))
        assert mine(caught.value) == shown(answer), script
        return
    message = driver.stream.get_message(MessageGet(**request))
    theirs = answer["message"]
    assert (message.seq, message.subject.decode()) == (theirs["seq"], theirs["subject"]), script
    assert message.data == base64.b64decode(theirs.get("data", "")), script
    assert message.header == base64.b64decode(theirs.get("hdrs", "")), script
