"""What rounds of load, disaster and reading share, whatever is killed: streams of a few rounds, checks, results."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .control import ControlError
from .ledger import ConsumerLedger, Findings, StreamLedger
from .load import LoadError, LoadProcess
from .process import ServerError

SIZE = 128
CONSUMER = "puller"
ENDLESS = 10**9
"""More messages than a round has time for."""


@dataclass
class Result:
    """What the rounds came to."""

    rounds: int = 0
    acked: int = 0
    read: int = 0
    confirmed: int = 0
    starts_s: list[float] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)


@dataclass
class Generation:
    """The streams of a few consecutive rounds."""

    streams: list[StreamLedger]
    consumer: ConsumerLedger = field(default_factory=ConsumerLedger)

    @property
    def subjects(self) -> list[str]:
        """One subject in each stream."""
        return [f"{ledger.name}.x" for ledger in self.streams]


def consumer_config(ack_wait_ns: int) -> dict[str, Any]:
    """The durable pull consumer of each generation's first stream."""
    return {"durable_name": CONSUMER, "ack_policy": "explicit", "ack_wait": ack_wait_ns, "max_ack_pending": 20_000}


class RoundsBase:
    """Books, dice and load processes of a run of rounds."""

    def __init__(self, seed: int, generation_rounds: int, load_s: tuple[float, float], say: Callable[[str], None]):
        self.random = random.Random(seed)
        self.generation_rounds = generation_rounds
        self.load_s = load_s
        """The disaster comes so long after the load has begun."""
        self.say = say
        self.result = Result()
        self.number = 0
        self.generation: Generation | None = None
        self.publishers = LoadProcess()
        self.fetchers = LoadProcess()

    def close(self) -> None:
        """End the load processes; the servers are the caller's."""
        self.publishers.close()
        self.fetchers.close()

    def names(self) -> list[str]:
        """Of the next generation's streams."""
        return [f"{letter}{self.number + 1}" for letter in "ABC"]

    def take_fetched(self, generation: Generation, floor: int) -> None:
        """What the consumer got and was told is confirmed while the load ran; ``floor`` is from before."""
        delivered, confirmed = self.fetchers.result()
        generation.consumer.fetched(delivered, set(confirmed), floor, self.result.findings)
        self.result.confirmed += len(confirmed)

    def note_round(self, generation: Generation, what: str, ready: str, acked: int, read: int, began: float) -> None:
        """Count the round and say what it was."""
        self.result.rounds += 1
        self.result.acked += acked
        self.result.read = read
        self.say(
            f"round {self.number}: {what}, acked {acked:,}, {ready} in {self.result.starts_s[-1] * 1000:.0f} ms, "
            f"read {read:,}, floor {generation.consumer.floor:,}, confirmed acks "
            f"{len(generation.consumer.confirmed):,}, violations: {self.result.findings} "
            f"({time.monotonic() - began:.1f} s)"
        )

    def draw_acked(self, ledger: StreamLedger) -> list[int]:
        """A few acknowledged sequences, to be read one by one."""
        return self.random.sample(sorted(ledger.acked), min(3, len(ledger.acked)))

    def check_state(self, ledger: StreamLedger, last_seq: int, found: Mapping[int, bytes | None]) -> None:
        """The stream's last sequence, and what was read of some acknowledged ones."""
        findings = self.result.findings
        if last_seq < max(ledger.acked, default=0):
            text = f"{ledger.name}: last_seq {last_seq}, acknowledged {max(ledger.acked)}"
            findings.add("last sequence below an acknowledged one", 1, text)
        for sequence, payload in found.items():
            if payload is None or int(payload[:20]) != ledger.seen[sequence]:
                findings.add("get by sequence differs", 1, f"{ledger.name} {sequence}: {payload!r}")

    def drain_consumer(self, generation: Generation, within_s: float, command: str, **fields: Any) -> None:
        """The consumer gets to the end of its stream, by this command of its load process."""
        ledger, consumer, findings = generation.streams[0], generation.consumer, self.result.findings
        deadline = time.monotonic() + within_s
        while not consumer.delivered >= ledger.seen.keys() - ledger.lost:
            missing = ledger.seen.keys() - ledger.lost - consumer.delivered
            left = len(missing)
            if time.monotonic() > deadline:
                text = f"{ledger.name}: {sorted(missing)[:5]}"
                findings.add("message never delivered to the consumer", left, text)
                break
            floor = consumer.floor
            delivered, confirmed = self.fetchers.call(
                command,
                stream=ledger.name,
                consumer=CONSUMER,
                total=left,
                batch=min(1000, left),
                size=SIZE,
                **fields,
            )
            consumer.fetched(delivered, set(confirmed), floor, findings)
        self.say(f"  consumer got all {len(consumer.delivered):,} of {ledger.name}")


class Runner(Protocol):
    """Rounds on whatever it is."""

    result: Result

    def run(self, rounds: int) -> Result:
        """So many rounds."""

    def close(self) -> None:
        """End what was started."""


def run_rounds(runner: Runner, rounds: int) -> Result:
    """The result, also when the server or the harness failed on the way: that is a finding, too."""
    try:
        return runner.run(rounds)
    except (ServerError, ControlError, LoadError, OSError) as error:
        runner.result.findings.add("server or connection failed", 1, f"{type(error).__name__}: {error}")
        return runner.result
    finally:
        runner.close()


def report_or_remove(result: Result, folder: Path, keep: bool, say: Callable[[str], None]) -> None:
    """Print examples of what was found and keep the folder; else remove it."""
    for example in result.findings.examples:
        say(f"  {example}")
    if result.findings.total:
        say(f"store and log kept in {folder}")
    elif not keep:
        shutil.rmtree(folder, ignore_errors=True)
