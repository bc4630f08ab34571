"""kill -9 of one, several or all nodes of a cluster under full load: what R3 streams acknowledged is never missing.

A round: connections that follow the leaders publish to three R3 streams as fast as they can, a durable pull consumer
acknowledges with confirmation; at a random moment one node, a stream's leader, two or all nodes get SIGKILL, or a
leader is stopped for a while (SIGSTOP: it wakes up deposed); the load goes on where that is possible; the dead nodes
start again (sometimes before the load ends, sometimes killed once more on the way); everything is read through the
leaders and held against every promise made since the streams were created.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .cluster import ServerCluster
from .control import ApiError, Control, ControlError
from .disk_image import Names
from .ledger import StreamLedger
from .process import ServerError, session_pids
from .published import Published, PublishSpec
from .readers import Contents, drain
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

if TYPE_CHECKING:
    from .fuse_layer import PowerDisk

ACK_WAIT_NS = 3_000_000_000
VARIANTS = {"all": 8, "two": 3, "leader": 4, "one": 2, "pause": 3}
"""What happens to whom, and how often, relative to each other."""
LOAD = ((0, 4096), (1, 512), (2, 16), (0, 1), (2, 64))
"""Connections: which stream, and how many unanswered at most."""
READ_ATTEMPTS = 20


class ClusterRounds(RoundsBase):
    """Runs rounds against one cluster. ``disaster(numbers)`` kills these nodes (default: SIGKILL)."""

    def __init__(
        self,
        cluster: ServerCluster,
        seed: int,
        *,
        replicas: int = 3,
        generation_rounds: int = 5,
        load_s: tuple[float, float] = (0.05, 0.8),
        tail_s: tuple[float, float] = (0.3, 2.0),
        variants: dict[str, int] | None = None,
        disaster: Callable[[list[int]], None] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__(seed, generation_rounds, load_s, say)
        self.cluster = cluster
        self.replicas = replicas
        self.tail_s = tail_s
        """How long the load goes on after the disaster."""
        self.variants = variants or VARIANTS
        self.disaster = disaster or cluster.kill

    def run(self, rounds: int) -> Result:
        """Run so many rounds; ends at the first violation."""
        self.result.starts_s.append(self.cluster.start())
        for _ in range(rounds):
            self.one_round()
            if self.result.findings.total:
                self.say(self.cluster.logs())
                break
        return self.result

    @property
    def ports(self) -> list[int]:
        return [node.port for node in self.cluster.nodes]

    # -- a round --------------------------------------------------------------------------------------------------

    def one_round(self) -> None:
        """Load, disaster, restart, read everything, check."""
        if self.generation is None:
            self.generation = self._new_generation()
        self.number += 1
        generation, findings = self.generation, self.result.findings
        began = time.monotonic()
        what, published = self._load_through_disaster(generation)
        acked = 0
        for ledger in generation.streams:
            mine = [each for each in published if each.subjects[0].startswith(f"{ledger.name}.")]
            acked += sum(ledger.published(each, findings) for each in mine)
        read = self._read_everything(generation)
        self.note_round(generation, f"{what}, connections {len(published)}", "nodes ready", acked, read, began)
        if self.number % self.generation_rounds == 0 and not findings.total:
            self._finish_generation(generation)
            self.generation = None

    def _new_generation(self) -> Generation:
        names = self.names()
        for name in names:
            self.cluster.create_stream(name, self.replicas)
        self.cluster.create_consumer(names[0], consumer_config(ACK_WAIT_NS))
        return Generation([StreamLedger(name) for name in names])

    def _load_through_disaster(self, generation: Generation) -> tuple[str, list[Published]]:
        dice = self.random
        variant = dice.choices(list(self.variants), list(self.variants.values()))[0]
        moment = dice.uniform(*self.load_s)
        tail = 0.0 if variant == "all" else dice.uniform(*self.tail_s)
        tag = self.number * 10_000
        specs = [
            PublishSpec(tag + 1000 * place, (generation.subjects[stream],), ENDLESS, window, SIZE)
            for place, (stream, window) in enumerate(LOAD)
        ]
        victims = self._victims(variant, generation)
        floor = generation.consumer.floor
        seconds = moment + tail + 0.5
        self.publishers.submit("follow_publish", ports=self.ports, specs=specs, seconds=seconds)
        began = time.monotonic()
        self.fetchers.submit(
            "follow_fetch",
            ports=self.ports,
            stream=generation.streams[0].name,
            consumer=CONSUMER,
            total=ENDLESS,
            batch=100,
            seconds=seconds,
            size=SIZE,
        )
        while time.monotonic() - began < moment:
            self._sample_floor(generation)
            time.sleep(0.05)
        what = f"{variant} ({', '.join(f'n{number + 1}' for number in victims)}) after {moment * 1000:.0f} ms"
        if variant == "pause":
            self._pause(victims, tail)
            what += f", {tail:.1f} s long"
        else:
            self.disaster(victims)
            if dice.random() < 0.5:
                what += self._start_again(victims)  # while the load is still there
            while time.monotonic() - began < moment + tail:
                self._sample_floor(generation)
                time.sleep(0.05)
        published: list[Published] = self.publishers.result()
        self.take_fetched(generation, floor)
        what += self._start_again([n for n in victims if not self.cluster.nodes[n].is_running()])
        return what, published

    def _victims(self, variant: str, generation: Generation) -> list[int]:
        everybody = list(range(len(self.cluster.nodes)))
        if variant == "all":
            return everybody
        if variant in ("leader", "pause"):
            return [self.cluster.leader(self.random.choice(generation.streams).name)]
        return sorted(self.random.sample(everybody, 2 if variant == "two" else 1))

    def _pause(self, victims: list[int], seconds: float) -> None:
        """The whole node stands still, connections open; then it goes on as if nothing had happened."""
        pids = []
        for number in victims:
            process = self.cluster.nodes[number].process
            if process is not None:
                pids += session_pids(process.pid)
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def _start_again(self, victims: list[int]) -> str:
        if not victims:
            return ""
        extra = 0
        while self.random.random() < 0.2:
            extra += 1
            for number in victims:
                self.cluster.nodes[number].spawn()
            time.sleep(self.random.uniform(0.0, 1.5))
            self.disaster(victims)
        self.result.starts_s.append(self.cluster.start(victims))
        return f" and {extra} times while starting" if extra else ""

    def _sample_floor(self, generation: Generation) -> None:
        for port in self.ports:
            try:
                with Control(port, timeout_s=0.2) as control:
                    info = control.api(f"CONSUMER.INFO.{generation.streams[0].name}.{CONSUMER}")
            except (ControlError, OSError):
                continue  # dead, paused, or it does not lead
            generation.consumer.floor_seen(info["ack_floor"]["stream_seq"], self.result.findings)

    # -- reading --------------------------------------------------------------------------------------------------

    def _read_everything(self, generation: Generation) -> int:
        return sum(self._read(ledger) for ledger in generation.streams) + self._last_floor(generation)

    def _last_floor(self, generation: Generation) -> int:
        self.cluster.leader(generation.streams[0].name)
        self._sample_floor(generation)
        return 0

    def _read(self, ledger: StreamLedger) -> int:
        """Everything, through the leader; again if leadership moves meanwhile."""
        findings = self.result.findings
        for attempt in range(READ_ATTEMPTS):
            number = self.cluster.leader(ledger.name)
            port = self.cluster.nodes[number].port
            try:
                with Control(port) as control:
                    state = control.api(f"STREAM.INFO.{ledger.name}")["state"]
                    contents = drain(port, ledger.name, state["messages"], size=SIZE)
                    found = {sequence: control.get(ledger.name, sequence) for sequence in self.draw_acked(ledger)}
                    break
            except (ControlError, OSError) as error:
                if isinstance(error, ApiError) and error.code == 404:
                    findings.add("stream lost", 1, f"{ledger.name}: {error}")
                    return 0
                if attempt + 1 == READ_ATTEMPTS:
                    raise ServerError(f"{ledger.name} cannot be read: {error}\n{self.cluster.logs()}") from error
                time.sleep(0.1)
        self._check(ledger, contents)
        self.check_state(ledger, state["last_seq"], found)
        return len(contents.sequences)

    def _check(self, ledger: StreamLedger, contents: Contents) -> None:
        ledger.check(contents, self.result.findings)
        expected = range(1, len(contents.sequences) + 1)
        if list(contents.sequences) != list(expected):
            self.result.findings.add("sequences have gaps or are out of order", 1, ledger.name)

    def _finish_generation(self, generation: Generation) -> None:
        """The consumer gets to the end of its stream; then the streams go."""
        self.drain_consumer(generation, 60, "follow_fetch", ports=self.ports, seconds=10.0)
        for each in generation.streams:
            self.cluster.delete_stream(each.name)


def run(
    server: str,
    rounds: int,
    seed: int,
    say: Callable[[str], None] = print,
    *,
    nodes: int = 3,
    variants: dict[str, int] | None = None,
    power: bool = False,
    names: Names = Names.STRICT,
    tear: bool = True,
    keep: bool = False,
    folder: Path | None = None,
    tolerated: frozenset[str] = frozenset(),
) -> Result:
    """Run the test. The stores are removed afterwards, unless there are findings, or ``keep`` or ``folder``.

    ``power``: who is killed also loses what its disk had not synced (ask ``fuse_layer.missing`` first); ``tear``: half
    of these cuts let unsynced sectors live by chance.
    """
    keep = keep or folder is not None
    folder = folder or Path(tempfile.mkdtemp(prefix="jepsen-cluster-"))
    with contextlib.ExitStack() as stack:
        disks: list[PowerDisk] = []
        if power:
            from .fuse_layer import PowerDisk  # only here: the rest needs no mfusepy

            for number in range(nodes):
                home = folder / f"n{number + 1}"
                home.mkdir(parents=True, exist_ok=True)
                disks.append(PowerDisk(home, names))
                stack.callback(disks[-1].close)
        stores = [disk.mount / "store" for disk in disks] or None
        cluster = stack.enter_context(ServerCluster(server, folder, nodes, stores=stores))
        runner = ClusterRounds(cluster, seed, replicas=min(nodes, 3), variants=variants, say=say)
        runner.result.findings.tolerated = tolerated
        if disks:

            def cut(numbers: list[int]) -> None:
                cluster.kill(numbers)
                for number in numbers:
                    is_torn = tear and runner.random.random() < 0.5
                    disks[number].cut(runner.random.randrange(2**31) if is_torn else None)

            runner.disaster = cut
        result = run_rounds(runner, rounds)
    report_or_remove(result, folder, keep, say)
    return result
