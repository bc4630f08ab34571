"""Checkpoints: what is written again and what is not, damage, and independence of hash seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stream_driver import SECOND, Driver

from jetstore.errors import Corruption, FormatUnknown
from jetstore.store.ports import Checkpoint
from jetstore.stream.dedupe import BUCKETS_PER_WINDOW
from jetstore.stream.logical import logical_head
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid, Term


def filled() -> Driver:
    driver = Driver(allow_msg_ttl=True, duplicate_window=64 * SECOND)
    for i in range(5):
        driver.publish(*[("a", {"Nats-Msg-Id": f"{i}-{j}", "Nats-TTL": "1h" if j else "never"}, "") for j in range(3)])
        driver.now_ns += SECOND
    return driver


def restored(driver: Driver, done: Checkpoint, chunks: dict[str, bytes]) -> Stream:
    stream = driver.stream
    return Stream.restore(stream.uid, done.head, chunks, stream.log, stream.index, stream.limits)


def test_only_changed_chunks_are_written_again() -> None:
    driver = filled()
    first = driver.stream.checkpoint(Term(1))
    assert first.chunks.keys() == first.keep_chunks
    assert len(first.chunks) == 6  # five buckets of ids and the expiry times
    driver.stream.checkpointed(first)
    assert not driver.stream.checkpoint(Term(1)).chunks
    driver.put("a", Nats_Msg_Id="new")
    second = driver.stream.checkpoint(Term(1))
    assert [name.split("-")[0] for name in second.chunks] == ["ids"]
    assert len(second.keep_chunks) == 7
    driver.put("a", Nats_TTL="2h")
    third = driver.stream.checkpoint(Term(1))
    assert sorted(name.split("-")[0] for name in third.chunks) == ["ids", "ttl"]


def test_a_checkpoint_that_did_not_become_durable_is_written_whole_again() -> None:
    driver = filled()
    first = driver.stream.checkpoint(Term(1))
    assert driver.stream.checkpoint(Term(1)) == first


def test_old_ids_leave_with_their_chunk() -> None:
    driver = filled()
    done = driver.stream.checkpoint(Term(1))
    driver.now_ns += 64 * SECOND + 64 * SECOND // BUCKETS_PER_WINDOW
    driver.put("a", Nats_Msg_Id="late")
    again = driver.stream.checkpoint(Term(1))
    assert not {name for name in again.keep_chunks & done.keep_chunks if name.startswith("ids")}
    assert driver.put("a", Nats_Msg_Id="0-0") == 17


def test_restored_stream_goes_on_the_same() -> None:
    driver = filled()
    done = driver.stream.checkpoint(Term(1))
    twin = restored(driver, done, done.chunks)
    assert logical_head(twin) == logical_head(driver.stream)
    assert twin.next_expiry_ns() == driver.stream.next_expiry_ns()
    assert twin.durable_chunks == done.keep_chunks
    assert twin.state() == driver.stream.state()


def test_the_worked_example_of_the_document() -> None:
    driver = Driver(allow_msg_ttl=True)
    driver.put("a", "x", Nats_Msg_Id="i", Nats_TTL="never")
    chunks = driver.stream.checkpoint(Term(1)).chunks
    assert chunks["ids-0000000001-1"] == (
        b'77\n{"seqs":[1],"mark_seqs":[1],"mark_times":[1700000000000000000],"id_lens":[1]}i' + b"\xa3\xf3\xf1\x9f"
    )
    assert chunks["ttl-00000000000000000002"].hex() == "0" * 16 + "0100000000000000" * 2 + "0a46a1a4"


def test_damaged_or_missing_chunks_and_foreign_heads() -> None:
    driver = filled()
    done = driver.stream.checkpoint(Term(1))
    for name, chunk in done.chunks.items():
        with pytest.raises(Corruption):
            restored(driver, done, {n: c for n, c in done.chunks.items() if n != name})
        for at in range(0, len(chunk), 5):
            damaged = chunk[:at] + bytes((chunk[at] ^ 4,)) + chunk[at + 1 :]
            with pytest.raises(Corruption):
                restored(driver, done, done.chunks | {name: damaged})
    ids = sorted(name for name in done.chunks if name.startswith("ids"))
    with pytest.raises(Corruption):
        restored(driver, done, done.chunks | {ids[0]: done.chunks[ids[1]]})
    stream = driver.stream
    with pytest.raises(Corruption, match="another group"):
        Stream.restore(GroupUid(9), done.head, done.chunks, stream.log, stream.index, stream.limits)
    driver.put("a")
    with pytest.raises(Corruption, match="log and head differ"):
        restored(driver, done, done.chunks)


def test_unknown_head() -> None:
    driver = filled()
    stream = driver.stream
    with pytest.raises(FormatUnknown):
        Stream.restore(stream.uid, b'{"version":1}', {}, stream.log, stream.index, stream.limits)
    with pytest.raises(Corruption):
        Stream.restore(stream.uid, b"{", {}, stream.log, stream.index, stream.limits)


SCRIPT = """
from random import Random
from test_stream_against_model import dense_config, dense_step, run_step
from stream_driver import Driver
from stream_model import StreamModel
from jetstore.stream.logical import logical_hash
for seed in range(12):
    dice = Random(seed)
    config = dense_config(dice)
    storage = config.pop("storage")
    config.setdefault("duplicate_window", 10**10)
    driver = Driver(storage=storage, **config)
    model = StreamModel(config | {"storage": storage})
    for _ in range(40):
        run_step(driver, model, dense_step(dice), False)
    checkpoint = driver.stream.checkpoint(1)
    print(logical_hash(driver.stream), list(checkpoint.chunks), checkpoint.head.hex()[:200])
"""


def test_independent_of_the_hash_seed() -> None:
    """Equal entries give equal heads in processes that order sets and dicts of bytes differently."""
    here = Path(__file__).parent
    path = os.pathsep.join([*map(str, (here.parent.parent, here.parent, here, here.parent / "models"))])
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 12
