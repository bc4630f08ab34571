"""Runs the ``nats`` command line against a server and writes down what it said, without what differs at every run."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jepsen.real.process import REPOSITORY, ServerProcess

STEP_SECONDS = 15
"""No single command takes longer; one that does is killed, and its step says so."""

CONFIGURATION = """
server_name: n1
accounts {
  $SYS { users [ {user: admin, password: x} ] }
  A { jetstream: enabled, users [ {user: a, password: x} ] }
}
no_auth_user: a
"""


def find_tool(name: str = "nats") -> str | None:
    """Path of a tool: $JETSTORE_NATS_TOOL ($JETSTORE_NATS_TOP_TOOL), PATH, or the project's .venv; None = not there."""
    named = os.environ.get(f"JETSTORE_{name.upper().replace('-', '_')}_TOOL")
    if named:
        return named
    beside = REPOSITORY / ".venv" / "bin" / name
    return shutil.which(name) or (str(beside) if beside.exists() else None)


@dataclass(frozen=True)
class Step:
    """One command line. ``background`` is started, and joined (with its output) at the step ``Join``."""

    line: str
    code: int = 0
    """The exit code that it ends with, whatever the server; below 0: the signal."""
    stdin: str = ""
    system: bool = False
    """As the system account's user."""
    background: str = ""
    """The text of its output that says it is ready; the step is joined by the next ``Join``."""
    sorted_lines: bool = False
    """The order of lines is not the server's to give."""
    exit_only: bool = False
    """Only the exit code is compared: the rest is figures."""
    figures: bool = False
    """Numbers in the output are not compared."""
    drop: str = ""
    """Regular expression of lines that are left out, with the reason beside it."""
    terminal: bool = False
    """The command wants one."""


@dataclass(frozen=True)
class Join:
    """Wait for the background command to end, and write down what it said."""

    stop: bool = False
    """Send it SIGINT first."""
    until: str = ""
    """Regular expression of what its output holds before that."""


@dataclass
class Transcript:
    """What each step said."""

    entries: list[tuple[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Steps that ended with another exit code than they should have, with all they said."""

    def add(self, title: str, text: str) -> None:
        """Another step."""
        self.entries.append((title, text))


MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
RULES: list[tuple[str, str]] = [
    (r"\x1b\[[0-9;?]*[A-Za-z]", ""),
    (r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?( [+-]\d{4} UTC)?", "<time>"),
    (r"\b\d\d:\d\d:\d\d(\.\d+)?\b", "<clock>"),
    (rf"\b({MONTHS}) +\d+\b", "<day>"),
    (r"\b(\d+d|\d+h|\d+m)*\d+(\.\d+)?(ns|µs|us|ms|s)\b", "<span>"),
    (r"\b(\d+d)?(\d+h)?\d+m\d+(\.\d+)?s\b", "<span>"),
    (r"_INBOX\.[A-Za-z0-9.]+", "<inbox>"),
    (r"\b[NAU][A-Z2-7]{55}\b", "<key>"),
    (r"\b[A-Za-z0-9]{22}\b", "<id>"),
    (r"127\.0\.0\.1:\d+", "<address>"),
    (r"\b127\.0\.0\.1\b", "<host>"),
    (r"\b2\.15\.\d+\b", "<version>"),
    (r"\bcid: ?\d+", "cid:<cid>"),
    (r"\bgo1\.\d+(\.\d+)?\b", "<go>"),
    (r"[─━═╌-]{2,}", "--"),
    (r"hosted at level \d", "hosted at level <level>"),
    (r'"_nats.level": "\d"', '"_nats.level": "<level>"'),
    (r"([Hh]andler:?) \d+", r"\1 <pid>"),
    (r"done! \[.*\]", ""),
    (r"[\s\xa0]*\n[\s\xa0]*", "\n"),
    (r"[ \t\xa0]+", " "),
]


def normalised(text: str, secrets: dict[str, str]) -> str:
    """``text`` without times, names drawn by lot, ports, widths of tables and colours."""
    for value, name in secrets.items():
        text = text.replace(value, name)
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _await(pattern: str, process: subprocess.Popen[str], output: Path) -> None:
    """Until a background command has said it, has ended, or has had its time."""
    deadline = time.monotonic() + STEP_SECONDS
    while not re.search(pattern, output.read_text()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


class Tool:
    """The tool with a home of its own, pointed at one server."""

    def __init__(self, binary: str, home: Path, server: ServerProcess) -> None:
        self._binary, self._home, self._server = binary, home, server
        self._running: list[tuple[Step, subprocess.Popen[str], Path]] = []
        self.transcript = Transcript()
        home.mkdir(parents=True, exist_ok=True)
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "TZ": "UTC",
            "COLUMNS": "200",
            "GOMAXPROCS": "1",
        }

    def argv(self, step: Step) -> list[str]:
        """The whole command line of a step."""
        words = [word.replace("{home}", str(self._home)) for word in shlex.split(step.line)]
        words = [word.replace("{url}", f"nats://127.0.0.1:{self._server.port}") for word in words]
        user = "admin:x@" if step.system else ""
        argv = [self._binary, *words]
        if words[0] != "context" and "--context" not in words:
            argv += ["-s", f"nats://{user}127.0.0.1:{self._server.port}"]
        return argv

    def run(self, steps: list[Step | Join]) -> Transcript:
        """All steps, one after the other; the transcript so far."""
        for step in steps:
            if isinstance(step, Join):
                self._join(step)
            elif step.background:
                self._start(step)
            else:
                self._one(step)
        return self.transcript

    def _one(self, step: Step) -> None:
        if step.terminal:
            self._note(step, *self._on_terminal(step))
            return
        try:
            done = subprocess.run(
                self.argv(step),
                input=step.stdin,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._home,
                timeout=STEP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            self._note(step, -1, f"still running after {STEP_SECONDS} s: {late.output!r}")
            return
        self._note(step, done.returncode, done.stdout)

    def _on_terminal(self, step: Step) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            self.argv(step), stdin=theirs, stdout=theirs, stderr=theirs, env=self._environment, cwd=self._home
        ) as process:
            os.close(theirs)
            late = threading.Timer(STEP_SECONDS, process.kill)
            late.start()
            try:
                said = bytearray()
                with contextlib.suppress(OSError):  # what Linux says when the other side is closed
                    while data := os.read(ours, 65_536):
                        said += data
                return process.wait(), said.decode(errors="replace")
            finally:
                late.cancel()
                os.close(ours)

    def _start(self, step: Step) -> None:
        output = self._home / f"background{len(self.transcript.entries)}.txt"
        with output.open("w") as sink:
            process = subprocess.Popen(
                self.argv(step),
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._home,
            )
        self._running.append((step, process, output))
        _await(re.escape(step.background), process, output)

    def _join(self, how: Join) -> None:
        step, process, output = self._running.pop(0)
        _await(how.until, process, output)
        if how.stop:
            process.send_signal(2)
        try:
            code = process.wait(STEP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait() - 1000
        self._note(step, code, output.read_text())

    def _note(self, step: Step, code: int, text: str) -> None:
        if code != step.code:
            self.transcript.failures.append(f"$ nats {step.line}\nexit {code} instead of {step.code}\n{text}")
        secrets = {str(self._home): "<home>", str(self._server.port): "<port>"}
        text = "" if step.exit_only else normalised(text, secrets)
        if step.figures:
            text = re.sub(r"\d[\d,.]*( [KMG]?i?B\b)?", "#", text)
        lines = [line for line in text.splitlines() if not (step.drop and re.search(step.drop, line))]
        if step.sorted_lines:
            lines.sort()
        self.transcript.add(("system: " if step.system else "") + step.line, f"exit {code}\n" + "\n".join(lines))

    def close(self) -> None:
        """End what still runs in the background."""
        for _, process, _ in self._running:
            process.kill()
            process.wait()


@contextmanager
def tool_for(binary: str, home: Path, server: ServerProcess) -> Iterator[Tool]:
    """A ``Tool``; what it left running is ended."""
    tool = Tool(binary, home, server)
    try:
        yield tool
    finally:
        tool.close()
