"""The load in a process of its own: jobs go in through a pipe, results come back.

``LoadProcess`` is kept for many jobs, one at a time. A job says "started" when its connections stand, so that whoever
injects faults knows when the load runs. A lost connection is no error of a publishing job: what has no answer by then
has an unknown outcome, and the result says what was acknowledged.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from array import array
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from typing import Any

from .client import CorePublisher, OneEachPublisher, Publisher, connect, run_loop
from .control import ControlError
from .features import feature_load
from .follow import follow_fetch, follow_publish
from .published import Published, PublishSpec
from .readers import Contents, Fetcher, Wire, drain
from .values import Blocks, pad

Started = Callable[[], None]


def publish(
    started: Started, port: int, specs: list[PublishSpec], keep_acks: bool = True, seconds: float = 0.0
) -> list[Published]:
    """Publish on all connections at once until each is answered or lost; with ``seconds`` > 0, send for so long.

    ``keep_acks`` = False leaves the columns empty: only ``sent`` and the times count.
    """

    async def main() -> list[Published]:
        publishers = [
            Publisher(spec.subjects, tag=spec.tag, total=spec.total, window=spec.window, size=spec.size)
            for spec in specs
        ]
        results = [Published(spec.tag, spec.subjects, 0) for spec in specs]
        try:
            for publisher in publishers:
                await connect(port, publisher)
        except OSError as error:
            results[0].errors.append(f"connect: {error}")
            return results
        for publisher in publishers:
            publisher.start()
            if seconds:
                asyncio.get_running_loop().call_later(seconds, publisher.stop)
        started()
        for publisher, result in zip(publishers, results, strict=True):
            await publisher.done
            result.ended = publisher.ended
        for publisher, result in zip(publishers, results, strict=True):
            publisher.transport.abort()
            result.sent, result.began = publisher.sent, publisher.began
            result.errors = publisher.errors
            if keep_acks:
                result.numbers, result.sequences = publisher.acks()
                result.refusals = publisher.refusals()
            elif publisher.answered < publisher.total:
                result.errors.append(f"{publisher.answered} answers of {publisher.sent}")
        return results

    result: list[Published] = run_loop(main())
    return result


def one_each(
    started: Started, port: int, subjects: list[str], tag: int, total: int, size: int = 128, seconds: float = 0.0
) -> Published:
    """One message in flight in each of up to 1,000 streams; with ``seconds`` > 0, for so long."""

    async def main() -> Published:
        publisher = OneEachPublisher(subjects, tag=tag, total=total, size=size)
        await connect(port, publisher)
        publisher.start()
        if seconds:
            asyncio.get_running_loop().call_later(seconds, publisher.stop)
        started()
        await publisher.done
        publisher.transport.abort()
        numbers, sequences = publisher.acks()
        return Published(
            tag,
            tuple(subjects),
            publisher.sent,
            numbers,
            sequences,
            publisher.refusals(),
            publisher.errors,
            publisher.began,
            publisher.ended,
        )

    result: Published = run_loop(main())
    return result


def one_by_one(
    started: Started, port: int, subject: str, tag: int, total: int, size: int = 128, seconds: float = 1e9
) -> array[float]:
    """Publish ``total`` messages (or for ``seconds``), each after the answer to the last; the latencies in seconds."""
    inbox = b"_INBOX.s%08d" % tag
    wire = Wire(port, b"SUB %b.* 1\r\n" % inbox)
    blocks = Blocks([subject], inbox, tag, size)
    latencies: array[float] = array("d")
    started()
    clock = time.perf_counter
    until = clock() + seconds
    for number in range(total):
        data = blocks.one(number)
        began = clock()
        wire.socket.sendall(data)
        answer = wire.lines()
        while answer.count(b"\n") < 2:
            answer += wire.lines()
        ended = clock()
        latencies.append(ended - began)
        if b'"seq"' not in answer or b'"error"' in answer:
            raise ControlError(f"not a PubAck: {answer[:200]!r}")
        if ended > until:
            break
    wire.close()
    return latencies


def core_publish(started: Started, port: int, subject: str, total: int, size: int = 128) -> float:
    """Publish without replies; the time.perf_counter() of the first write."""

    async def main() -> float:
        publisher = await connect(port, CorePublisher(subject, tag=1, total=total, size=size))
        started()
        began = time.perf_counter()
        publisher.start()
        await publisher.done
        publisher.transport.abort()
        return began

    result: float = run_loop(main())
    return result


def core_subscribe(started: Started, port: int, subject: str, total: int) -> float:
    """Receive ``total`` messages; the time.perf_counter() of the last one."""
    wire = Wire(port, f"SUB {subject} 1\r\n".encode())
    started()
    lines = 0
    while lines < 2 * total:
        lines += wire.lines().count(b"\n")
    wire.close()
    return time.perf_counter()


def drain_stream(started: Started, port: int, stream: str, count: int, consumer: dict[str, Any]) -> float:
    """Seconds a push consumer with ack none takes to deliver ``count`` messages."""
    started()
    return drain(port, stream, count, collect=False, timeout_s=60, consumer=consumer).seconds


def fetch(
    started: Started,
    port: int,
    stream: str,
    consumer: str,
    total: int,
    batch: int = 1000,
    confirm: bool = False,
    size: int = 128,
) -> tuple[Contents, array[int]]:
    """Fetch and acknowledge until ``total`` messages came or the connection is lost: (delivered, confirmed)."""
    fetcher = Fetcher(port, stream, consumer, batch, confirm)
    tail = pad(size)
    began = time.perf_counter()
    try:
        fetcher.open()
        started()
        while len(fetcher.delivered.sequences) < total:
            fetcher.round(tail)
    except (OSError, ControlError):
        # The server was killed under the load; what is known until then counts.
        pass
    finally:
        fetcher.close()
    fetcher.delivered.seconds = time.perf_counter() - began
    return fetcher.delivered, fetcher.confirmed


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job
    for job in (
        *(publish, one_each, one_by_one, core_publish, core_subscribe, drain_stream, fetch),
        *(follow_publish, follow_fetch, feature_load),
    )
}


def serve_jobs(pipe: Pipe) -> None:
    """The load process: take (name, arguments), answer ("started", None) and ("result" | "error", value)."""
    # Ctrl-C goes to the whole foreground group; the parent decides what ends when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        try:
            result = JOBS[name](lambda: pipe.send(("started", None)), **arguments)
        except Exception as error:  # noqa: BLE001 - every failure of a job belongs to its caller
            pipe.send(("error", f"{type(error).__name__}: {error}"))
        else:
            pipe.send(("result", result))


class LoadError(Exception):
    """A job failed in the load process, or took too long."""


class LoadProcess:
    """A process that makes load, one job at a time."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve_jobs, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._pending: list[tuple[str, Any]] = []

    def submit(self, name: str, *, wait_started: bool = True, timeout_s: float = 60.0, **arguments: Any) -> None:
        """Begin a job of ``JOBS``; returns when its load runs."""
        self._pipe.send((name, arguments))
        if wait_started:
            kind, value = self._receive(timeout_s)
            if kind != "started":
                self._pending.append((kind, value))

    def result(self, timeout_s: float = 120.0) -> Any:
        """The result of the last job. LoadError when it failed."""
        while True:
            kind, value = self._pending.pop() if self._pending else self._receive(timeout_s)
            if kind == "error":
                raise LoadError(value)
            if kind == "result":
                return value

    def call(self, name: str, *, timeout_s: float = 120.0, **arguments: Any) -> Any:
        """Submit and wait for the result."""
        self.submit(name, wait_started=False, **arguments)
        return self.result(timeout_s)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def __enter__(self) -> LoadProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, timeout_s: float) -> tuple[str, Any]:
        if not self._pipe.poll(timeout_s):
            raise LoadError(f"nothing from the load process in {timeout_s} s")
        try:
            message: tuple[str, Any] = self._pipe.recv()
        except EOFError:
            raise LoadError("the load process ended") from None
        return message
