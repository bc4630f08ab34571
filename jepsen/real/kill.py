"""kill -9 under full load, again and again on one store: nothing acknowledged may be missing afterwards.

A round: several connections publish to three streams as fast as they can, a durable pull consumer acknowledges part of
it, and atomic batches, schedules and a mirror run beside it (``features.py``); at a random moment every process of the
server gets SIGKILL (sometimes once more while it starts again); it is started on the same store; everything is read and
held against every promise made since the streams were created.
Every few rounds the consumer must come to the end of its stream, and new streams take over: a round stays short.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .control import Control, ControlError
from .features import FeatureLoad, Features, state_of
from .ledger import StreamLedger
from .load import LoadProcess
from .process import ServerProcess
from .published import Published, PublishSpec
from .readers import drain
from .rounds import (
    CONSUMER,
    ENDLESS,
    SIZE,
    Generation,
    Result,
    RoundsBase,
    consumer_config,
    report_or_remove,
    run_rounds,
)

ACK_WAIT_NS = 1_000_000_000


class Rounds(RoundsBase):
    """Runs rounds against one server. ``disaster`` is what happens to it at the random moment (default: kill)."""

    def __init__(
        self,
        server: ServerProcess,
        seed: int,
        *,
        generation_rounds: int = 5,
        load_s: tuple[float, float] = (0.02, 0.3),
        disaster: Callable[[], None] | None = None,
        main_only: float = 0.0,
        say: Callable[[str], None] = print,
        extra_kills: bool = True,
        stop_at_first: bool = True,
    ) -> None:
        super().__init__(seed, generation_rounds, load_s, say)
        self.server = server
        self.disaster = disaster or self._kill
        self.main_only = main_only
        """Share of kills that reach the server's main process only; its others end by themselves, or should."""
        self.extra_kills = extra_kills
        self.stop_at_first = stop_at_first
        self.features: Features | None = None
        """Of the generation."""
        self.feature_publishers = LoadProcess()

    def close(self) -> None:
        super().close()
        self.feature_publishers.close()

    def _kill(self) -> None:
        if self.random.random() < self.main_only:
            self.server.kill_main()
        else:
            self.server.kill()

    def run(self, rounds: int) -> Result:
        """Run so many rounds; ends at the first violation, or goes on with new streams after it."""
        self.result.starts_s.append(self.server.start())
        for _ in range(rounds):
            before = self.result.findings.total
            self.one_round()
            if self.result.findings.total > before:
                if self.stop_at_first:
                    break
                self.generation = None
        return self.result

    def one_round(self) -> None:
        """Load, disaster, restart, read everything, check."""
        if self.generation is None:
            self.generation = self._new_generation()
        self.number += 1
        generation = self.generation
        findings = self.result.findings
        total_before = findings.total
        began = time.monotonic()
        load_s, published = self._load_until_disaster(generation)
        extra = self._start_again()
        acked = 0
        for ledger in generation.streams:
            acked += sum(ledger.published(result, findings) for result in published)
        for result in published:
            findings.add("publish refused", len(result.refusals), str(result.refusals[:1]))
        assert self.features is not None
        load: FeatureLoad = self.feature_publishers.result()
        acked += self.features.published(load, findings)
        read = self._read_everything(generation)
        self.note_round(generation, f"killed after {load_s * 1000:.0f} ms{extra}", "ready", acked, read, began)
        if self.number % self.generation_rounds == 0 and findings.total == total_before:
            self._finish_generation(generation)
            self.generation = None

    def _new_generation(self) -> Generation:
        names = self.names()
        with Control(self.server.port) as control:
            for name in names:
                control.api(f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{name}.>"]})
            config = consumer_config(ACK_WAIT_NS)
            control.api(f"CONSUMER.DURABLE.CREATE.{names[0]}.{CONSUMER}", {"stream_name": names[0], "config": config})
            generation = Generation([StreamLedger(name) for name in names])
            self.features = Features(self.number + 1, generation.streams[-1])
            self.features.create(control)
        return generation

    def _load_until_disaster(self, generation: Generation) -> tuple[float, list[Published]]:
        first, *others = generation.subjects
        tag = self.number * 10
        specs = [
            PublishSpec(tag, (first,), ENDLESS, 4096, SIZE),
            PublishSpec(tag + 1, (*others, others[0], others[1]), ENDLESS, 2048, SIZE),
            PublishSpec(tag + 2, (first, others[0], first, others[1]), ENDLESS, 16, SIZE),
        ]
        port = self.server.port
        stream = generation.streams[0].name
        moment = self.random.uniform(*self.load_s)
        floor = generation.consumer.floor
        assert self.features is not None
        self.feature_publishers.submit(
            "feature_load",
            port=port,
            batch_stream=self.features.batches.name,
            schedule_stream=self.features.schedules.name,
            tag=tag + 3,
        )
        self.publishers.submit("publish", port=port, specs=specs)
        began = time.monotonic()
        self.fetchers.submit(
            "fetch", port=port, stream=stream, consumer=CONSUMER, total=ENDLESS, batch=100, confirm=True, size=SIZE
        )
        with Control(port) as control:
            self._sample_floor(control, generation)
            while time.monotonic() - began < moment:
                self._sample_floor(control, generation)
                time.sleep(0.01)
        self.disaster()
        lasted = time.monotonic() - began
        published: list[Published] = self.publishers.result()
        self.take_fetched(generation, floor)
        return lasted, published

    def _sample_floor(self, control: Control, generation: Generation) -> None:
        try:
            info = control.api(f"CONSUMER.INFO.{generation.streams[0].name}.{CONSUMER}")
        except ControlError as error:
            self.result.findings.add("consumer info failed", 1, str(error))
            return
        generation.consumer.floor_seen(info["ack_floor"]["stream_seq"], self.result.findings)

    def _start_again(self) -> str:
        extra = 0
        while self.extra_kills and self.random.random() < 0.2:
            extra += 1
            self.server.spawn()
            time.sleep(self.random.uniform(0.0, 0.4))
            self.disaster()
        self.result.starts_s.append(self.server.start())
        orphans = self.server.orphans()
        if orphans:
            self.result.findings.add("process outlives its server and the next start", len(orphans), str(orphans))
        return f" and {extra} times while starting" if extra else ""

    def _read_everything(self, generation: Generation) -> int:
        findings = self.result.findings
        total = 0
        with Control(self.server.port) as control:
            for ledger in generation.streams:
                state = state_of(control, ledger.name, findings)
                contents = drain(self.server.port, ledger.name, state["messages"], size=SIZE)
                ledger.check(contents, findings)
                total += state["messages"]
                found = {sequence: control.get(ledger.name, sequence) for sequence in self.draw_acked(ledger)}
                self.check_state(ledger, state["last_seq"], found)
            assert self.features is not None
            total += self.features.check(control, self.server.port, findings)
            self._sample_floor(control, generation)
        return total

    def _finish_generation(self, generation: Generation) -> None:
        """The consumer gets to the end of its stream; then the streams go."""
        self.drain_consumer(generation, 30, "fetch", port=self.server.port, confirm=True)
        assert self.features is not None
        with Control(self.server.port) as control:
            for name in (*self.features.names, *(each.name for each in generation.streams)):
                control.api(f"STREAM.DELETE.{name}")


def run(
    server: str,
    rounds: int,
    seed: int,
    say: Callable[[str], None] = print,
    *,
    keep: bool = False,
    folder: Path | None = None,
    tolerated: frozenset[str] = frozenset(),
) -> Result:
    """Run the kill test. The store is removed afterwards, unless there are findings, or ``keep`` or ``folder``."""
    keep = keep or folder is not None
    folder = folder or Path(tempfile.mkdtemp(prefix="jepsen-kill-"))
    with ServerProcess(server, folder / "store") as process:
        runner = Rounds(process, seed, say=say, main_only=0.3)
        runner.result.findings.tolerated = tolerated
        result = run_rounds(runner, rounds)
    report_or_remove(result, folder, keep, say)
    return result
