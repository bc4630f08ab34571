"""Flipped bits in every class of file of a stopped store: what is served then is right, and what is not, is named.

One store is made with known content and stopped (cleanly, or by kill -9). Each trial copies it, flips bits in the files
of one class, starts a server on the copy, reads every sequence one by one and through a consumer, and publishes again.
Violations: other bytes than were stored; a message that is missing without an error answer and without a word in the
log; a sequence that is handed out a second time; an ack floor that went back. Not to start at all, with a reason, is
allowed: one node has no second copy.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from .control import ApiError, Control, ControlError
from .ledger import Findings
from .load import LoadProcess
from .process import ServerError, ServerProcess
from .published import PublishSpec
from .readers import Contents, Fetcher, drain, get_by_sequence
from .values import TAG_UNIT, payload

SIZE = 128
CONSUMER = "flip"
AGAIN = 20
"""Messages published to each stream after the damage."""

FILE_CLASSES = {
    "journal": ["*/journal/*.jnl"],
    "segments": ["*/segments/*", "*/msgs/*.blk"],
    "heads": ["*/HEAD.*", "*/streams/*/meta.inf", "*/streams/*/meta.sum"],
    "chunks": ["*/chunks/*"],
    "identity": ["*/IDENTITY*"],
    "index": ["*/index/*", "*/msgs/index.db"],
    "consumers": ["*/obs/*"],
}
"""First match counts; of jetstore and of nats-server. What matches none is the class "other"."""
LOUD = re.compile(r"\[(WRN|ERR|FTL)\] (?!event loop was late)(.*)")


def file_class(path: str) -> str:
    """The class of a file of a store, by its path inside the store."""
    for name, patterns in FILE_CLASSES.items():
        if any(fnmatchcase("/" + path, pattern) for pattern in patterns):
            # A consumer's directory lies inside its stream's.
            return "consumers" if "/obs/" in path else name
    return "other"


def classes_of(store: Path) -> dict[str, list[Path]]:
    """The files of a store that have any content, by class."""
    found: dict[str, list[Path]] = {}
    for path in sorted(store.rglob("*")):
        if path.is_file() and path.stat().st_size and has_content(path):
            found.setdefault(file_class(str(path.relative_to(store))), []).append(path)
    return found


def has_content(path: Path) -> bool:
    """Whether any byte of the file is not zero."""
    return used_bytes(path) > 0


def used_bytes(path: Path) -> int:
    """The size without the zeros at the end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while size > 0:
            start = max(0, size - (1 << 20))
            file.seek(start)
            rest = file.read(size - start).rstrip(b"\0")
            if rest:
                return start + len(rest)
            size = start
    return 0


@dataclass
class Original:
    """The store before the damage: last sequence of each stream, and how to tell each message."""

    counts: dict[str, int] = field(default_factory=dict)
    tags: dict[str, int] = field(default_factory=dict)
    floor: int = 0

    def payload(self, stream: str, sequence: int) -> bytes:
        """What is stored at a sequence."""
        return payload(self.tags[stream] * TAG_UNIT + sequence - 1, SIZE)


@dataclass
class Trial:
    """What one damaged store came to."""

    file_class: str
    damage: str
    outcome: str = ""
    right: int = 0
    absent: int = 0
    refused: int = 0
    unanswered: int = 0
    reused: int = 0
    published: int = 0
    words: list[str] = field(default_factory=list)
    """Warnings and errors in the log."""
    findings: Findings = field(default_factory=Findings)


class FlipTest:
    """Makes the original store and runs trials on copies of it."""

    def __init__(
        self, server: str, messages: int, seed: int, folder: Path, how: str = "stop", reads: int = 10**9
    ) -> None:
        """``how``: the original server ends by "stop" or "kill". ``reads``: by sequence, of what was delivered."""
        self.reads = reads
        self.server = server
        self.random = random.Random(seed)
        self.folder = folder
        self.original = Original()
        self.master = folder / "original"
        self._make(messages, how)
        self.classes = classes_of(self.master)

    def _make(self, messages: int, how: str) -> None:
        shares = {"F1": 0.6, "F2": 0.3, "F3": 0.1}
        with ServerProcess(self.server, self.master) as process, LoadProcess() as load:
            process.start()
            for number, (name, share) in enumerate(shares.items()):
                with Control(process.port) as control:
                    control.api(f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{name}.>"]})
                count = max(1, int(messages * share))
                self.original.counts[name], self.original.tags[name] = count, number + 1
                # F2 has many subjects, so that there is an index worth damaging.
                subject = "F2.{n}" if name == "F2" else f"{name}.x"
                spec = PublishSpec(number + 1, (subject,), count, 2000, SIZE)
                (result,) = load.call("publish", port=process.port, specs=[spec])
                if list(result.sequences) != list(range(1, count + 1)) or list(result.numbers) != list(range(count)):
                    raise ServerError(f"the original store was not made: {result.errors} {result.refusals[:1]}")
            with Control(process.port) as control:
                config = {"durable_name": CONSUMER, "ack_policy": "explicit", "ack_wait": 10**9}
                control.api(f"CONSUMER.DURABLE.CREATE.F1.{CONSUMER}", {"stream_name": "F1", "config": config})
                fetcher = Fetcher(process.port, "F1", CONSUMER, batch=200, confirm=True)
                fetcher.open()
                fetcher.round()
                fetcher.close()
                control.flush()
                self.original.floor = control.api(f"CONSUMER.INFO.F1.{CONSUMER}")["ack_floor"]["stream_seq"]
            if how == "kill":
                process.kill()
            else:
                process.stop()

    def trial(self, name: str, flips: int) -> Trial:
        """Flip bits in one class, start, read, publish."""
        store = self.folder / "copy"
        shutil.rmtree(store, ignore_errors=True)
        subprocess.run(["cp", "-r", "--sparse=always", str(self.master), str(store)], check=True)
        log = self.folder / "copy.log"
        log.unlink(missing_ok=True)
        trial = Trial(name, self._flip(store, name, flips))
        process = ServerProcess(self.server, store, log=log)
        try:
            try:
                process.start(timeout_s=30)
            except ServerError as error:
                trial.outcome = "does not start"
                text = str(error)
                if "not ready" in text or "Traceback" in text:
                    trial.findings.add("neither starts nor ends with a reason", 1, f"{trial.damage}: {text[-600:]}")
                return trial
            trial.outcome = "starts"
            self._look(process, trial)
            if not process.is_running():
                trial.outcome = "stopped itself"
            elif trial.findings.counts.get("connection failed"):
                trial.findings.add("connection lost, server still runs", 1, trial.damage)
            trial.findings.counts.pop("connection failed", None)
        finally:
            process.kill()
            trial.words = [match.group(2) for match in LOUD.finditer(log.read_text(errors="replace"))]
            self._judge(trial)
        return trial

    def _flip(self, store: Path, name: str, flips: int) -> str:
        files = [store / path.relative_to(self.master) for path in self.classes[name]]
        sizes = [used_bytes(path) for path in files]
        done = []
        for _ in range(flips):
            at = self.random.randrange(sum(sizes))
            chosen = 0
            while at >= sizes[chosen]:
                at -= sizes[chosen]
                chosen += 1
            path = files[chosen]
            bit = 1 << self.random.randrange(8)
            with path.open("r+b") as file:
                file.seek(at)
                (byte,) = file.read(1)
                file.seek(at)
                file.write(bytes([byte ^ bit]))
            done.append(f"{path.relative_to(store)}@{at}^{bit}")
        return ", ".join(done[:3]) + (f" and {len(done) - 3} more" if len(done) > 3 else "")

    def _look(self, process: ServerProcess, trial: Trial) -> None:
        try:
            for stream in self.original.counts:
                delivered = self._read_consumer(process, stream, trial)
                self._read_stream(process, stream, delivered, trial)
            self._read_durable(process, trial)
            for stream in self.original.counts:
                self._publish_again(process, stream, trial)
        except (ControlError, OSError) as error:
            trial.findings.add("connection failed", 1, f"{trial.damage}: {error}")

    def _read_stream(self, process: ServerProcess, stream: str, delivered: set[int], trial: Trial) -> None:
        """Every sequence that the consumer did not deliver, one by one, and of the others as many as are wanted."""
        every = range(1, self.original.counts[stream] + 1)
        others = sorted(delivered.intersection(every))
        if len(others) > self.reads:
            others = self.random.sample(others, self.reads)
        trial.right += len(delivered) - len(others)
        sequences = sorted({*every} - delivered | {*others})
        answers = get_by_sequence(process.port, stream, sequences)
        wrong = [
            sequence for sequence, data in answers.payloads.items() if data != self.original.payload(stream, sequence)
        ]
        trial.right += len(answers.payloads) - len(wrong)
        trial.absent += len(answers.absent)
        trial.refused += len(answers.refused)
        trial.unanswered += len(answers.unanswered)
        text = f"{trial.damage}: {stream} {wrong[:5]}"
        trial.findings.add("wrong bytes served by sequence", len(wrong), text)
        if answers.refused:
            sequence, error = next(iter(answers.refused.items()))
            trial.words.append(f"{stream} {sequence}…: {error}")

    def _read_consumer(self, process: ServerProcess, stream: str, trial: Trial) -> set[int]:
        """What a new push consumer delivers must be right; it may end early, at damage. The sequences it delivered."""
        try:
            with Control(process.port) as control:
                count = control.api(f"STREAM.INFO.{stream}")["state"]["messages"]
            contents = drain(process.port, stream, count, size=SIZE, timeout_s=2, partly=True)
        except ControlError as error:
            trial.words.append(f"consumer of {stream}: {error}")
            return set()
        if len(contents.sequences) < count:
            trial.words.append(f"consumer of {stream} stands still after {len(contents.sequences)} of {count}")
        self._compare(stream, contents, trial)
        return set(contents.sequences)

    def _compare(self, stream: str, contents: Contents, trial: Trial) -> None:
        base = self.original.tags[stream] * TAG_UNIT - 1
        wrong = [
            sequence
            for sequence, value in zip(contents.sequences, contents.values, strict=True)
            if value != base + sequence
        ]
        text = f"{trial.damage}: {stream} {wrong[:5]} {contents.damaged[:2]}"
        trial.findings.add("wrong bytes delivered", len(wrong) + len(contents.damaged), text)

    def _read_durable(self, process: ServerProcess, trial: Trial) -> None:
        try:
            with Control(process.port) as control:
                info = control.api(f"CONSUMER.INFO.F1.{CONSUMER}")
        except ApiError as error:
            trial.words.append(f"durable consumer: {error}")
            if error.code == 404:
                trial.findings.add("durable consumer gone", 1, trial.damage)
            return
        floor = info["ack_floor"]["stream_seq"]
        if floor < self.original.floor:
            text = f"{trial.damage}: {self.original.floor} → {floor}"
            trial.findings.add("ack floor went back", 1, text)
        fetcher = Fetcher(process.port, "F1", CONSUMER, batch=100, expires_ns=1_000_000_000)
        fetcher.open(timeout_s=5)
        try:
            fetcher.round(payload(0, SIZE)[20:])
        except ControlError as error:
            trial.words.append(f"durable consumer: {error}")
        finally:
            fetcher.close()
        self._compare("F1", fetcher.delivered, trial)

    def _publish_again(self, process: ServerProcess, stream: str, trial: Trial) -> None:
        last = self.original.counts[stream]
        with Control(process.port) as control:
            for number in range(AGAIN):
                try:
                    ack = control.publish_sync(f"{stream}.again", b"again %d" % number, timeout_s=5)
                except ControlError as error:
                    trial.words.append(f"publish to {stream}: {error}")
                    return
                trial.published += 1
                if ack["seq"] <= last:
                    trial.reused += 1
                    text = f"{trial.damage}: {stream} {ack['seq']} of {last}"
                    trial.findings.add("sequence handed out again", 1, text)
                last = max(last, ack["seq"])

    @staticmethod
    def _judge(trial: Trial) -> None:
        missing = trial.absent + trial.unanswered
        if trial.outcome == "starts" and missing and not trial.words:
            trial.findings.add("missing without a word", missing, trial.damage)
        if trial.outcome != "starts" and not trial.words:
            trial.findings.add("stopped without a word", 1, trial.damage)


HEADINGS = (
    "class",
    "files",
    "trials",
    "start",
    "refuse",
    "right",
    "absent",
    "refused",
    "silent",
    "words",
    "violations",
)


def table(test: FlipTest, trials: list[Trial]) -> str:
    """One line per class of file."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    for name, files in test.classes.items():
        mine = [trial for trial in trials if trial.file_class == name]
        if not mine:
            continue
        findings = Findings()
        for trial in mine:
            findings.merge(trial.findings)
        cells = [
            name,
            len(files),
            len(mine),
            sum(trial.outcome == "starts" for trial in mine),
            sum(trial.outcome != "starts" for trial in mine),
            f"{sum(trial.right for trial in mine):,}",
            f"{sum(trial.absent for trial in mine):,}",
            f"{sum(trial.refused for trial in mine):,}",
            f"{sum(trial.unanswered for trial in mine):,}",
            sum(bool(trial.words) for trial in mine),
            findings,
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def run(
    server: str,
    messages: int,
    seed: int,
    say: Callable[[str], None] = print,
    *,
    trials: int = 3,
    flips: tuple[int, ...] = (1, 1, 8),
    how: str = "stop",
    only: str = "",
    reads: int = 10**9,
    keep: bool = False,
    folder: Path | None = None,
) -> tuple[Findings, list[Trial]]:
    """Run ``trials`` on each class, with ``flips`` in turn; prints the table."""
    own = folder is None
    folder = folder or Path(tempfile.mkdtemp(prefix="jepsen-flip-"))
    findings = Findings()
    done: list[Trial] = []
    test = FlipTest(server, messages, seed, folder, how, reads)
    say(
        f"original: {sum(test.original.counts.values()):,} messages, files: "
        + ", ".join(f"{name} {len(files)}" for name, files in test.classes.items())
    )
    for name in test.classes:
        if only and name != only:
            continue
        for number in range(trials):
            trial = test.trial(name, flips[number % len(flips)])
            done.append(trial)
            findings.merge(trial.findings)
            say(
                f"{name} {number + 1}/{trials}: {trial.damage}: {trial.outcome}, right {trial.right:,}, absent "
                f"{trial.absent:,}, refused {trial.refused:,}, silent {trial.unanswered:,}, published "
                f"{trial.published}, violations: {trial.findings}; {' | '.join(trial.words[:2])[:300]}"
            )
            for example in trial.findings.examples:
                say(f"    {example[:400]}")
    say(table(test, done))
    if own and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return findings, done
