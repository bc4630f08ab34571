"""Batches, schedules and the mirror of the kill rounds: what is wrong with them is found and named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from jepsen.real.control import Control
from jepsen.real.features import Features, feature_load
from jepsen.real.ledger import Findings, StreamLedger
from jepsen.real.process import JETSTORE, ServerProcess
from jepsen.real.published import Published
from jepsen.real.values import TAG_UNIT, payload

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, require_server: Callable[[str], None]) -> Iterator[ServerProcess]:
    require_server(JETSTORE)
    with ServerProcess(JETSTORE, tmp_path_factory.mktemp("features") / "store") as process:
        process.start()
        yield process


def test_what_is_missing_is_named(server: ServerProcess) -> None:
    findings = Findings()
    origin = StreamLedger("A1")
    features = Features(1, origin)
    with Control(server.port) as control:
        control.api("STREAM.CREATE.A1", {"name": "A1", "subjects": ["A1.>"]})
        features.create(control)
        for number in range(3):
            seq = control.publish_sync("A1.x", payload(TAG_UNIT + number, 128))["seq"]
            origin.seen[seq] = TAG_UNIT + number
        killer = threading.Timer(0.5, server.kill)
        killer.start()
        load = feature_load(lambda: None, server.port, "T1", "S1", 2)
        killer.join()
    server.start()
    assert len(load.counts) > 5
    assert len(load.batches.numbers) > 5
    assert features.published(load, findings) == len(load.batches.numbers) + len(load.schedules.numbers)
    with Control(server.port) as control:
        read = features.check(control, server.port, findings)
        assert read == sum(control.api(f"STREAM.INFO.{name}")["state"]["messages"] for name in features.names)
        assert not findings.counts, findings.examples

        control.api("STREAM.MSG.DELETE.T1", {"seq": 3})
        control.api("STREAM.PURGE.S1", {"keep": 1})
        control.api("STREAM.MSG.DELETE.M1", {"seq": 2})
        features.check(control, server.port, findings)
        assert findings.counts.keys() == {
            *("acknowledged message lost", "batch stored in part", "mirror differs from its origin"),
            *("message that was read has vanished", "scheduled message lost"),
        }
        assert findings.counts["batch stored in part"] == 1

        control.api("STREAM.DELETE.T1")
        features.check(control, server.port, findings)
        assert findings.counts["stream lost"] == 1


def test_a_schedule_that_fires_twice_is_found(server: ServerProcess) -> None:
    findings = Findings()
    features = Features(2, StreamLedger("A1"))
    with Control(server.port) as control:
        control.api("STREAM.CREATE.S2", {"name": "S2", "subjects": ["S2.>"]})
        for _ in range(2):
            control.publish_sync("S2.then", payload(5 * TAG_UNIT, 128))
        features.schedules.published(Published(5, ("S2.plan",), 1), findings)
        features.check(control, server.port, findings)
    assert findings.counts["message stored twice"] == 1
