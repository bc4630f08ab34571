"""A server under test: the command line for it, start until ready, kill -9, clean stop, memory and processor use.

A server is started in a session of its own; ``kill`` reaches every process of that session (jetstore's writer process
too) and returns when none of them runs any more. Only process ids that this module started are signalled.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from .control import Control, ControlError

REPOSITORY = Path(__file__).resolve().parents[2]

JETSTORE = "jetstore"
NATS_SERVER = "nats-server"
NATS_SERVER_ALWAYS = "nats-server-always"
"""nats-server with ``sync_interval: always``: one fsync for each message."""


class ServerError(Exception):
    """The server under test did not start, did not become ready or did not stop."""


def find_nats_server() -> str | None:
    """Path of a nats-server binary: $NATS_SERVER, PATH, or beside this Python; None when there is none."""
    named = os.environ.get("NATS_SERVER")
    if named:
        return named
    beside = Path(sys.executable).parent / "nats-server"
    return shutil.which("nats-server") or (str(beside) if beside.exists() else None)


def command_for(server: str) -> list[str]:
    """The command that starts ``server`` with JetStream on; store and port flags follow it.

    A name (jetstore, nats-server, nats-server-always) or any command line. ServerError: nothing of that name here.
    """
    if server == JETSTORE:
        return [sys.executable, "-m", "server.cli.main", "serve", "-js"]
    if server in (NATS_SERVER, NATS_SERVER_ALWAYS):
        binary = find_nats_server()
        if binary is None:
            raise ServerError("no nats-server binary on PATH")
        return [binary, "-js"]
    return shlex.split(server)


PORTS = range(16_000, 32_000)
"""Below the ports that the system gives to outgoing connections, so that none gets a server's while it is down."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at this moment; another one each time."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def session_pids(session: int) -> list[int]:
    """The live processes of a session, zombies left out."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_bytes()
        except OSError:
            continue
        fields = stat[stat.rfind(b")") + 2 :].split()
        if int(fields[3]) == session and fields[0] not in (b"Z", b"X"):
            found.append(int(entry))
    return found


@dataclass
class ServerProcess:
    """One server on one store. Start and stop it as often as needed; every start may take another port."""

    server: str
    store: Path
    port: int = 0
    """0 = a free one at each start."""
    extra: list[str] = field(default_factory=list)
    config: str = ""
    """Text of a configuration file; written beside the store and passed with -c."""
    monitor: bool = False
    """Open the HTTP monitoring port (``monitor_port``)."""
    log: Path = Path()
    monitor_port: int = 0
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    _fixed_port: int = 0
    _orphaned: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._fixed_port = self.port
        if self.log == Path():
            self.log = self.store.parent / f"{self.store.name}.log"

    def argv(self) -> list[str]:
        """The full command line of the next start."""
        argv = [*command_for(self.server), "-a", "127.0.0.1", "-p", str(self.port)]
        text = self.config
        if self.server == NATS_SERVER_ALWAYS:
            text += f'\njetstream {{ store_dir: "{self.store}", sync_interval: always }}\n'
        else:
            argv += ["-sd", str(self.store)]
        if text:
            path = self.log.with_suffix(".conf")
            path.write_text(text)
            argv += ["-c", str(path)]
        if self.monitor:
            argv += ["-m", str(self.monitor_port)]
        return argv + self.extra

    def spawn(self) -> None:
        """Start the process and return at once; it is not ready yet."""
        if self.process is not None:
            raise ServerError("already running")
        self.port = self._fixed_port or free_port()
        if self.monitor:
            self.monitor_port = free_port()
        self.starts += 1
        environment = dict(os.environ)
        paths = [str(REPOSITORY), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        # As installed: pip compiles what it installs. Otherwise each start would compile everything anew.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with self.log.open("ab") as log:
            log.write(b"--- start %d ---\n" % self.starts)
            log.flush()
            self.process = subprocess.Popen(
                self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return when JetStream answers; ServerError with the end of the log when it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        assert self.process is not None
        while True:
            if self.process.poll() is not None:
                code = self.process.returncode
                self._orphaned.append(self.process.pid)
                self.process = None
                raise ServerError(f"{self.server} ended with code {code}\n{self.log_tail()}")
            try:
                with Control(self.port, timeout_s=min(2.0, timeout_s)) as control:
                    control.api("INFO")
                    return
            except (OSError, ControlError):
                if time.monotonic() > deadline:
                    raise ServerError(f"{self.server} not ready in {timeout_s} s\n{self.log_tail()}") from None
            time.sleep(0.005)

    def start(self, timeout_s: float = 60.0) -> float:
        """Start and wait until JetStream answers; the seconds that took."""
        began = time.monotonic()
        self.spawn()
        self.wait_ready(timeout_s)
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL to every process of the server's session; returns when all are gone. Idempotent."""
        if self.process is None and not self._orphaned:
            return
        if self.process is not None:
            self._orphaned.append(self.process.pid)
        deadline = time.monotonic() + 30.0
        while True:
            pids = self.orphans()
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if (self.process is None or self.process.poll() is not None) and not pids:
                break
            if time.monotonic() > deadline:
                raise ServerError(f"processes {pids} survive SIGKILL")
            time.sleep(0.002)
        self.process = None
        self._orphaned.clear()

    def kill_main(self) -> None:
        """SIGKILL to the process that was started, and to no other: what it started notices by itself. Idempotent."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self._orphaned.append(self.process.pid)
        self.process = None

    def orphans(self) -> list[int]:
        """Processes that outlived the server they belonged to."""
        return [pid for session in self._orphaned for pid in session_pids(session)]

    def stop(self, timeout_s: float = 60.0) -> float:
        """SIGTERM and wait for a clean end; the seconds that took. ServerError when it had to be killed."""
        if self.process is None:
            return 0.0
        began = time.monotonic()
        session = self.process.pid
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
            while session_pids(session):
                if time.monotonic() - began > timeout_s:
                    raise subprocess.TimeoutExpired(self.server, timeout_s)
                time.sleep(0.002)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"{self.server} did not stop in {timeout_s} s\n{self.log_tail()}") from None
        self.process = None
        return time.monotonic() - began

    def is_running(self) -> bool:
        """True until the process ended by itself or was stopped here."""
        return self.process is not None and self.process.poll() is None

    def log_tail(self, lines: int = 30) -> str:
        """The last lines the server wrote."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def rss_anon_bytes(self) -> int:
        """Anonymous resident memory of all processes of the server."""
        assert self.process is not None
        total = 0
        for pid in session_pids(self.process.pid):
            try:
                status = Path("/proc", str(pid), "status").read_text()
            except OSError:
                continue
            for line in status.splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1]) * 1024
        return total

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
