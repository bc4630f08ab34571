"""The load on a cluster: each connection goes where its stream's leader is, again and again until its time is over.

A connection that is lost, that hears a refusal or a status, or that hears nothing for a while is given up: what it had
no answer for has an unknown outcome; the next one publishes under a new tag. Jobs of ``load.py``.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Sequence

from .client import Publisher, connect, run_loop
from .control import Control, ControlError
from .published import Published, PublishSpec
from .readers import Contents, Fetcher
from .values import pad

ASK_S = 0.5
"""How long one node is asked whether it leads; those that do not may say nothing."""
SILENCE_S = 2.0
"""A connection that waits for answers for so long is given up."""
PAUSE_S = 0.02
EMPTY_S = 0.1
TAGS_EACH = 1000
"""Connections that one stream may have one after the other in a job."""


def leads(port: int, stream: str, timeout_s: float = ASK_S) -> bool:
    """Whether the server on that port says that it leads the stream."""
    try:
        with Control(port, timeout_s=timeout_s) as control:
            info = control.api(f"STREAM.INFO.{stream}")
            return bool(info["cluster"].get("leader") == control.info.get("server_name"))
    except (ControlError, OSError):
        return False


def find_leader(ports: Sequence[int], stream: str, until: float) -> int:
    """The port of the stream's leader; 0 = nobody said so until then (on ``time.monotonic``)."""
    while time.monotonic() < until:
        for port in ports:
            if leads(port, stream):
                return port
        time.sleep(PAUSE_S)
    return 0


class Following(Publisher):
    """A publisher that leaves at the first refusal: this node does not lead any more."""

    def on_lines(self, lines: bytes) -> None:
        super().on_lines(lines)
        if b'"error"' in lines:
            self.transport.abort()


async def _watch(publisher: Publisher, until: float) -> None:
    """Return when the connection has ended, is silent for too long, or its time is over and all is answered."""
    answered, since = -1, time.monotonic()
    while not publisher.done.done():
        await asyncio.wait([publisher.done], timeout=0.05)
        now = time.monotonic()
        if now >= until:
            publisher.stop()
        if publisher.answered != answered:
            answered, since = publisher.answered, now
        elif now - since > SILENCE_S:
            return


async def _publish_to(ports: Sequence[int], spec: PublishSpec, until: float) -> list[Published]:
    results: list[Published] = []
    stream = spec.subjects[0].split(".", 1)[0]
    for tag in range(spec.tag, spec.tag + TAGS_EACH):
        port = await asyncio.to_thread(find_leader, ports, stream, until)
        if not port:
            break
        publisher = Following(spec.subjects, tag=tag, total=spec.total, window=spec.window, size=spec.size)
        try:
            await asyncio.wait_for(connect(port, publisher), SILENCE_S)
        except (OSError, TimeoutError):
            continue
        publisher.start()
        await _watch(publisher, until)
        publisher.transport.abort()
        numbers, sequences = publisher.acks()
        results.append(
            Published(
                tag,
                spec.subjects,
                publisher.sent,
                numbers,
                sequences,
                publisher.refusals(),
                publisher.errors,
                publisher.began,
                publisher.ended,
            )
        )
    return results


def follow_publish(
    started: Callable[[], None], ports: list[int], specs: list[PublishSpec], seconds: float
) -> list[Published]:
    """Publish to one stream per spec for so long, wherever its leader is; tags from ``spec.tag`` on, 1,000 each."""

    async def main() -> list[Published]:
        until = time.monotonic() + seconds
        started()
        lists = await asyncio.gather(*(_publish_to(ports, spec, until) for spec in specs))
        return [result for each in lists for result in each]

    result: list[Published] = run_loop(main())
    return result


def follow_fetch(
    started: Callable[[], None],
    ports: list[int],
    stream: str,
    consumer: str,
    total: int,
    batch: int,
    seconds: float,
    size: int = 128,
) -> tuple[Contents, array[int]]:
    """Fetch and acknowledge, each acknowledgement confirmed, for so long or until ``total`` came: both lists."""
    until = time.monotonic() + seconds
    delivered, confirmed = Contents(), array("Q")
    tail = pad(size)
    started()
    while time.monotonic() < until and len(delivered.sequences) < total:
        port = find_leader(ports, stream, until)
        if not port:
            break
        fetcher = Fetcher(port, stream, consumer, min(batch, total - len(delivered.sequences)), True, 500_000_000)
        fetcher.delivered, fetcher.confirmed = delivered, confirmed
        try:
            fetcher.open(SILENCE_S)
            while time.monotonic() < until and len(delivered.sequences) < total:
                began = time.monotonic()
                if not fetcher.round(tail) and time.monotonic() - began < EMPTY_S:
                    break  # a status at once: nobody here answers pulls
        except (OSError, ControlError):
            # This node is gone, or leads no more; what is known until then counts.
            time.sleep(PAUSE_S)
        finally:
            fetcher.close()
    return delivered, confirmed
