"""An encrypted store under kill -9, with another secret at each start; its files show nothing of what it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jepsen.real.control import Control
from jepsen.real.process import JETSTORE, ServerError, ServerProcess

pytestmark = pytest.mark.real
PAYLOAD = b"what nobody else is to read "


def config(secret: str, *, previous: str = "", cipher: str = "chacha") -> str:
    before = f', prev_key: "{previous}"' if previous else ""
    return f'jetstream {{ key: "{secret}", cipher: {cipher}{before} }}\n'


def shown(store: Path) -> list[str]:
    """Files in which the subject or a payload stands."""
    files = [path for path in store.rglob("*") if path.is_file()]
    assert len(files) > 8
    return [str(path) for path in files if any(word in path.read_bytes() for word in (b"orders.of.mine", PAYLOAD))]


def test_kills_and_new_secrets(tmp_path: Path, require_server: Callable[[str], None]) -> None:
    require_server(JETSTORE)
    stored = 0
    with ServerProcess(JETSTORE, tmp_path / "store") as process:
        for turn, cipher in enumerate(("chacha", "aes", "chacha")):
            previous = f"secret {turn - 1}" if turn else ""
            process.config = config(f"secret {turn}", previous=previous, cipher=cipher)
            process.start()
            with Control(process.port) as control:
                if not turn:
                    control.api("STREAM.CREATE.S", {"name": "S", "subjects": ["orders.>"], "max_msg_size": 70_000})
                for seq in range(1, stored + 1):
                    assert control.api("STREAM.MSG.GET.S", {"seq": seq})["message"]["subject"] == "orders.of.mine"
                for _ in range(20):
                    stored += 1
                    answer = control.publish_sync("orders.of.mine", PAYLOAD * 2_000)
                    assert answer["seq"] == stored
            process.kill()
            assert shown(tmp_path / "store") == []
        for wrong in (config("secret 1"), ""):
            process.config = wrong
            with pytest.raises(ServerError):
                process.start()
