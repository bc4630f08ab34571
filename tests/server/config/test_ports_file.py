"""The ports file's name and content."""

from __future__ import annotations

import json
import os
from pathlib import Path

from server.config.ports_file import write_ports_file


def test_name_and_content(tmp_path: Path) -> None:
    path = write_ports_file(str(tmp_path), {"nats": ["nats://127.0.0.1:4222"], "monitoring": [], "cluster": ()})
    assert path.name.endswith(f"_{os.getpid()}.ports")
    assert json.loads(path.read_text()) == {"nats": ["nats://127.0.0.1:4222"]}
    assert list(tmp_path.iterdir()) == [path]
