"""The ports file: tells scripts which ports a server got (``ports_file_dir``)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_ports_file(directory: str, listeners: Mapping[str, Sequence[str]]) -> Path:
    """The path of ``<executable>_<pid>.ports`` with the URLs by kind (``nats``, ``monitoring``); empty kinds left out.

    To be written when all listeners are up and removed on a graceful exit. It appears whole or not at all.
    """
    path = Path(directory) / f"{Path(sys.argv[0]).name}_{os.getpid()}.ports"
    shown = {kind: list(urls) for kind, urls in listeners.items() if urls}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(shown, separators=(",", ":")), encoding="utf-8")
    partial.replace(path)
    return path
