"""Several servers of one cluster on the loopback interface: start together, kill any of them, find who leads.

Works for jetstore and nats-server. Each node keeps its ports; they lie below the kernel's ephemeral range, so that no
outgoing connection takes one while its node is down.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .control import ApiError, Control, ControlError
from .follow import leads
from .process import ServerError, ServerProcess, free_port

NAME = "jepsen"
_ATTEMPT_S = 1.0
"""How long one node is waited for while a leader is looked for; a node that does not lead may say nothing."""
_RETRY_S = 0.01


def fixed_ports(count: int) -> list[int]:
    """So many different ports that are free now."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


class ServerCluster:
    """``size`` servers named n1, n2, …; each on ``folder/n1/store`` unless ``stores`` says otherwise."""

    def __init__(
        self, server: str, folder: Path, size: int = 3, *, stores: list[Path] | None = None, monitor: bool = False
    ) -> None:
        ports = fixed_ports(2 * size)
        client_ports, ports = ports[:size], ports[size:]
        routes = ",".join(f"nats-route://127.0.0.1:{port}" for port in ports)
        self.server = server
        self.nodes: list[ServerProcess] = []
        for number, port in enumerate(ports):
            name = f"n{number + 1}"
            home = folder / name
            home.mkdir(parents=True, exist_ok=True)
            extra = ["-n", name, "--cluster_name", NAME, "--cluster", f"nats://127.0.0.1:{port}", "--routes", routes]
            store = stores[number] if stores is not None else home / "store"
            self.nodes.append(
                ServerProcess(
                    server, store, client_ports[number], extra=extra, monitor=monitor, log=home / "server.log"
                )
            )

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self, numbers: Iterable[int] | None = None, timeout_s: float = 60.0) -> float:
        """Start these nodes (default: all), each ready to serve; the seconds that took."""
        began = time.monotonic()
        wanted = list(range(len(self.nodes)) if numbers is None else numbers)
        for number in wanted:
            self.nodes[number].spawn()
        for number in wanted:
            self.nodes[number].wait_ready(timeout_s)
        return time.monotonic() - began

    def kill(self, numbers: Iterable[int] | None = None) -> None:
        """SIGKILL to these nodes (default: all): first to every main process, so that none sees much of the others."""
        wanted = list(range(len(self.nodes)) if numbers is None else numbers)
        for number in wanted:
            process = self.nodes[number].process
            if process is not None:
                process.kill()
        for number in wanted:
            self.nodes[number].kill()

    def running(self) -> list[int]:
        """Nodes that were started and have not ended."""
        return [number for number, node in enumerate(self.nodes) if node.is_running()]

    def logs(self, lines: int = 15) -> str:
        """The last lines of each node."""
        return "\n".join(f"--- n{number + 1}\n{node.log_tail(lines)}" for number, node in enumerate(self.nodes))

    # -- who leads ------------------------------------------------------------------------------------------------

    def leader(self, stream: str, timeout_s: float = 30.0) -> int:
        """The number of the node that leads a stream. ServerError: nobody in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for number in self.running():
                if leads(self.nodes[number].port, stream, _ATTEMPT_S):
                    return number
            time.sleep(_RETRY_S)
        answers = ", ".join(f"n{number + 1}: {self._answer(number, stream)}" for number in range(len(self.nodes)))
        raise ServerError(f"nobody leads {stream} after {timeout_s} s ({answers})\n{self.logs()}")

    def _answer(self, number: int, stream: str) -> str:
        """What a node says of a stream, in words."""
        try:
            with Control(self.nodes[number].port, timeout_s=_ATTEMPT_S) as control:
                return f"leader {control.api(f'STREAM.INFO.{stream}')['cluster'].get('leader', 'unknown')}"
        except (ControlError, OSError) as error:
            return str(error)

    def create_stream(self, name: str, replicas: int = 3, timeout_s: float = 30.0, **config: Any) -> int:
        """A stream on ``<name>.>`` unless told otherwise, asked of one node after the other; the node that leads it."""
        body = {"name": name, "subjects": [f"{name}.>"], "num_replicas": replicas, **config}
        self._ask_around(f"STREAM.CREATE.{name}", body, timeout_s)
        return self.leader(name, timeout_s)

    def create_consumer(self, stream: str, config: dict[str, Any], timeout_s: float = 30.0) -> None:
        """A durable consumer."""
        body = {"stream_name": stream, "config": config}
        self._ask_around(f"CONSUMER.DURABLE.CREATE.{stream}.{config['durable_name']}", body, timeout_s)

    def delete_stream(self, name: str, timeout_s: float = 30.0) -> None:
        """Gone everywhere, as far as the metadata is concerned."""
        self._ask_around(f"STREAM.DELETE.{name}", None, timeout_s)

    def _ask_around(self, name: str, body: dict[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        last: Exception | None = None
        while time.monotonic() < deadline:
            for number in self.running():
                try:
                    with Control(self.nodes[number].port, timeout_s=5.0) as control:
                        return control.api(name, body)
                except ApiError as error:
                    # 10008: this node does not lead; 404: it has not heard of the stream (yet).
                    if error.err_code != 10008 and error.code != 404:
                        raise
                    last = error
                except (ControlError, OSError) as error:
                    last = error
            time.sleep(_RETRY_S)
        raise ServerError(f"{name}: {last}\n{self.logs()}")

    def __enter__(self) -> ServerCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
