"""What every row stands on: a fresh server, the load processes, sizes, and the description of a row."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jepsen.real.control import Control
from jepsen.real.load import LoadProcess
from jepsen.real.process import ServerProcess
from jepsen.real.published import Published, PublishSpec

STREAM = "BENCH"
MESSAGE_BYTES = 128
WINDOW = 4096


@dataclass(frozen=True)
class Sizes:
    """How much each row does."""

    seconds: float = 3.0
    """Of publishing, in rows that go by time."""
    messages: int = 500_000
    """Stored before they are read, and published in core rows."""
    streams: int = 1000
    large_mib: int = 256
    """Of 1 MiB messages."""
    restart_messages: int = 1_000_000
    restart_subjects: int = 100_000
    memory_messages: int = 2_000_000
    memory_steps: int = 2
    filtered_messages: int = 1_000_000
    kills: int = 10
    """Of a stream's leader, in one measurement."""


QUICK = Sizes(
    seconds=1.0,
    messages=100_000,
    large_mib=64,
    restart_messages=200_000,
    restart_subjects=20_000,
    memory_messages=400_000,
    filtered_messages=100_000,
    kills=5,
)


class Unavailable(Exception):
    """This row has no meaning on this server, or not with these sizes; the text says why."""


@dataclass
class Bench:
    """One measurement of one server. Rows take what they need from here; everything is ended by ``close``."""

    server: str
    sizes: Sizes
    folder: Path
    loads: list[LoadProcess]
    """Processes that make the load; kept from row to row."""
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def start(self, **fields: Any) -> ServerProcess:
        """A fresh server on an empty store, ready."""
        store = Path(tempfile.mkdtemp(dir=self.folder))
        process = ServerProcess(self.server, store / "store", **fields)
        self.stack.callback(shutil.rmtree, store, True)
        self.stack.callback(process.kill)
        process.start()
        return process

    def load(self, number: int = 0) -> LoadProcess:
        """The n-th load process."""
        while len(self.loads) <= number:
            self.loads.append(LoadProcess())
        return self.loads[number]

    def create_stream(self, port: int, name: str = STREAM, subjects: str = "", **config: Any) -> None:
        """A file stream with one replica, on ``<name>.>`` unless told otherwise."""
        with Control(port, timeout_s=60) as control:
            body = {"name": name, "subjects": [subjects or f"{name}.>"], **config}
            control.api(f"STREAM.CREATE.{name}", body)

    def fill(
        self,
        port: int,
        messages: int,
        *,
        subject: str = f"{STREAM}.x",
        size: int = MESSAGE_BYTES,
        tag: int = 1,
        window: int = WINDOW,
    ) -> None:
        """Store so many messages, all acknowledged."""
        spec = PublishSpec(tag, (subject,), messages, window, size)
        check(self.load().call("publish", port=port, specs=[spec], keep_acks=False, timeout_s=3600), messages)

    def close(self) -> None:
        """End the servers of this measurement and remove their stores."""
        self.stack.close()


def check(results: list[Published], messages: int = 0) -> Published:
    """The only result, when all went well. RuntimeError: lost connections, refusals, too few messages."""
    (result,) = results
    if result.errors or result.refusals or result.sent < messages:
        raise RuntimeError(f"publishing failed: sent {result.sent} {result.errors[:3]} {result.refusals[:3]}")
    return result


@dataclass(frozen=True)
class Outcome:
    """One value of a row, and what else is worth printing beside it."""

    value: float
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    unit: str
    measure: Callable[[Bench], Outcome]
    more_is_better: bool = True
    syncs: bool = True
    """False = nothing is written while it is measured, so nats-server's sync mode does not matter."""
