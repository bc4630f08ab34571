"""What the command prints: totals over seeds, a progress line, the story of one run, the matrix fault × transition."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter

import structlog

from jepsen.checker.tally import CHECKERS
from jepsen.history import NEVER_NS
from jepsen.sim.run import Report

BAR_CELLS = 30


def quiet() -> None:
    """No server logs: thousands of servers die here on purpose."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.ReturnLoggerFactory(),
    )


class Totals:
    """Sums over reports."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.nodes: Counter[int] = Counter()
        self.matrix: Counter[tuple[str, str]] = Counter()
        self.checks: Counter[str] = Counter()
        self.workloads: Counter[str] = Counter()
        self.failed: list[Report] = []
        self.virtual_s = 0.0
        self._elsewhere_s = 0.0
        self._wall_s, self._cpu_s = time.monotonic(), time.process_time()

    @property
    def rate(self) -> float:
        """Operations per second so far."""
        return self.counts["operations"] / max(1e-9, time.monotonic() - self._wall_s)

    def add(self, report: Report) -> None:
        """One more seed."""
        self.counts.update(
            seeds=1,
            operations=report.operations,
            acks=report.acks,
            unknown=report.unknown,
            starts=report.boots,
            damaged=len(report.damage),
            lost=sum(problem.startswith("lost") for problem in report.problems),
        )
        self.virtual_s += report.virtual_s
        self._elsewhere_s += report.cpu_s
        self.nodes[report.nodes] += 1
        self.faults.update(report.strikes)
        self.faults.update({f"disk {name}": count for name, count in report.fault_counts.items()})
        self.faults.update({f"link: {name}": count for name, count in report.link_counts.items()})
        self.faults.update({f"end by {name}": count for name, count in report.deaths.items()})
        self.matrix.update(report.matrix)
        self.checks.update(report.checks)
        self.workloads.update(report.workloads)
        self.counts["most"] = max(self.counts["most"], report.operations)
        if report.problems:
            self.failed.append(report)

    def summary(self, *, matrix: bool = False) -> None:
        """Print it."""
        counts, cpu_s = self.counts, time.process_time() - self._cpu_s + self._elsewhere_s
        print(
            f"{counts['seeds']} seeds, {counts['operations']} operations (at most {counts['most']} in one), "
            f"{counts['acks']} publishes acknowledged, "
            f"{counts['unknown']} unknown, {counts['lost']} lost, {counts['starts']} starts, "
            f"{counts['damaged']} damages"
        )
        if set(self.nodes) - {1}:
            print("nodes: " + ", ".join(f"{count} seeds with {nodes}" for nodes, count in sorted(self.nodes.items())))
        print(
            f"{self.virtual_s:.0f} virtual s in {time.monotonic() - self._wall_s:.1f} s; per CPU second "
            f"{self.virtual_s / max(1e-9, cpu_s):.0f} virtual s, "
            f"{counts['operations'] / max(1e-9, cpu_s):.0f} operations"
        )
        if self.faults:
            print("faults: " + ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items())))
        print("workloads: " + ", ".join(f"{name} {count}" for name, count in sorted(self.workloads.items())))
        print("compared: " + ", ".join(f"{name} {self.checks[name]}" for name in CHECKERS))
        if matrix:
            for line in matrix_lines(self.matrix):
                print(line)
        if self.failed:
            print(
                f"{len(self.failed)} FAILED, {sum(report.is_unsafe for report in self.failed)} of them in safety: "
                f"seeds {' '.join(str(report.seed) for report in self.failed)}"
            )
        else:
            print("passed")


def matrix_lines(matrix: Counter[tuple[str, str]]) -> list[str]:
    """A table: a row for each fault, a column for each transition."""
    if not matrix:
        return ["matrix: no group of several members was seen"]
    columns = sorted({transition for _, transition in matrix})
    rows = sorted({fault for fault, _ in matrix})
    width = max(len(row) for row in rows)
    lines = [f"{number:>3} = {name}" for number, name in enumerate(columns, 1)]
    lines.append(" " * width + "".join(f"{number:>8}" for number in range(1, len(columns) + 1)))
    lines += [row.ljust(width) + "".join(f"{matrix[row, column]:>8}" for column in columns) for row in rows]
    return lines


def merged_story(report: Report, *, with_history: bool) -> list[str]:
    """What the nemesis did and (perhaps) what clients did, in order of time."""
    events = [(float(line[2:].split(" ", 1)[0]), 0, line) for line in report.story]
    if with_history and report.history is not None:
        for operation in report.history.operations:
            end_ns = operation.end_ns if operation.end_ns != NEVER_NS else operation.start_ns
            events.append((end_ns / 1e9, 1, f"    {operation.line()}"))
    events.sort(key=lambda event: event[:2])
    return [line for _, _, line in events]


def progress(done: int, total: int, totals: Totals) -> None:
    """A bar on a terminal, a line now and then elsewhere."""
    told = f"{done}/{total} seeds, {len(totals.failed)} failed, {totals.rate:.0f} ops/s"
    if sys.stderr.isatty():
        cells = BAR_CELLS * done // total
        sys.stderr.write(f"\r{'█' * cells}{'·' * (BAR_CELLS - cells)} {told} ")
        sys.stderr.flush()
    elif done % max(1, total // 10) == 0:
        print(told, flush=True)


def clear() -> None:
    """Take the bar away."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
