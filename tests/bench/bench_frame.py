"""ns per message of the frame kernels: ``python tests/bench/bench_frame.py`` (one core, a few seconds)."""

from __future__ import annotations

from time import perf_counter_ns

from jetstore.hot.frame import decode_frame, decode_frame_run, encode_frame_run, encode_frames
from jetstore.store.ports import Columns


def best_ns(work: object, messages: int, rounds: int = 30) -> float:
    """Best of ``rounds``, per message."""
    assert callable(work)
    times = []
    for _ in range(rounds):
        start = perf_counter_ns()
        work()
        times.append(perf_counter_ns() - start)
    return min(times) / messages


def main() -> None:
    count = 2_000
    cases = {
        "one subject, 128 B": Columns([b"orders.new"] * count, (), [bytes([i % 251]) * 128 for i in range(count)]),
        "one subject, 64-192 B": Columns([b"orders.new"] * count, (), [b"x" * (64 + i % 129) for i in range(count)]),
        "many subjects, 128 B": Columns([b"orders.%d" % i for i in range(count)], (), [b"x" * 128] * count),
        "headers, 128 B": Columns([b"orders.new"] * count, [40] * count, [b"x" * 168] * count),
    }
    for name, columns in cases.items():
        frames = encode_frames(columns, 1, 32_768)
        run = encode_frame_run(frames)
        encode = best_ns(lambda c=columns: encode_frames(c, 1, 32_768), count)
        decode = best_ns(lambda f=frames: [decode_frame(x.body, x.count) for x in f], count)
        pack = best_ns(lambda f=frames: encode_frame_run(f), count)
        unpack = best_ns(lambda r=run: decode_frame_run(r), count)
        print(f"{name:24} encode {encode:6.1f}  decode {decode:6.1f}  run {pack:5.1f} / {unpack:5.1f} ns/msg")


if __name__ == "__main__":
    main()
