"""A plain store gets a key and is killed again and again while it is encrypted: nothing is lost, nothing shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from jepsen.real.control import Control
from jepsen.real.process import JETSTORE, ServerError, ServerProcess

pytestmark = pytest.mark.real
PAYLOAD = b"what nobody else is to read "
CONFIG = 'jetstream { key: "s3cret" }\n'
STORED = 150
KILLS = 4
BOUND_S = 60.0


def shown(store: Path) -> list[str]:
    """Files in which the subject or a payload stands."""
    files = [path for path in store.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(word in path.read_bytes() for word in (b"orders.of.mine", PAYLOAD))]


def is_mixed(store: Path) -> bool:
    return any(b'"mixed"' in path.read_bytes() for path in store.rglob("KEYS*"))


def publish(control: Control, count: int) -> int:
    """The last sequence."""
    last = 0
    for _ in range(count):
        last = control.publish_sync("orders.of.mine", PAYLOAD * 1_000)["seq"]
    return last


def test_kills_while_it_is_encrypted(tmp_path: Path, require_server: Callable[[str], None]) -> None:
    require_server(JETSTORE)
    store, rng = tmp_path / "store", Random(1)
    with ServerProcess(JETSTORE, store) as process:
        process.start()
        with Control(process.port) as control:
            control.api("STREAM.CREATE.S", {"name": "S", "subjects": ["orders.>"], "max_msg_size": 70_000})
            stored = publish(control, STORED)
        process.kill()
        assert shown(store)
        process.config = CONFIG
        for _ in range(KILLS):
            process.start()
            with Control(process.port) as control:
                stored = publish(control, rng.randrange(1, 20))
            process.kill()
        process.start()
        deadline = time.monotonic() + BOUND_S
        while is_mixed(store):
            assert time.monotonic() < deadline, shown(store)
            time.sleep(0.05)
        assert shown(store) == []
        with Control(process.port) as control:
            for seq in range(1, stored + 1):
                assert control.api("STREAM.MSG.GET.S", {"seq": seq})["message"]["subject"] == "orders.of.mine"
            stored = publish(control, 5)
        process.kill()
        assert shown(store) == []
        process.start()
        with Control(process.port) as control:
            assert control.api("STREAM.INFO.S")["state"]["last_seq"] == stored
        process.kill()
        process.config = ""
        with pytest.raises(ServerError):
            process.start()
