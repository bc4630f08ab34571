"""Clients of a cluster that ask whichever server they are connected to, and stay there: servers find who leads.

What such a client sends is answered, refused or lost wherever it ends up; it never looks for a leader, and gets its
answers over the links between the servers. When its server dies it connects to another one.
"""

from __future__ import annotations

from typing import Any

from jepsen.sim.client import Client, connect
from jepsen.sim.server import PORT
from jepsen.sim.world import World


class AnywhereClient(Client):
    """A connection to one server, for everything."""

    is_one_of_several = True
    replicas = 1
    server = ""
    """The machine's name."""

    async def api(self, call: str, body: dict[str, Any] | None = None, *, timeout_s: float = 5.0) -> dict[str, Any]:
        """As ``Client.api``; a stream gets as many copies as there are machines."""
        if call.startswith("STREAM.CREATE") and body is not None:
            body = {"num_replicas": self.replicas, **body}
        return await super().api(call, body, timeout_s=timeout_s)


class OpenWorld(World):
    """A world in which every client goes anywhere."""

    connections = 0

    async def connect(self, name: str, node: int | None = None) -> Client:
        """A connection to any machine that runs, or to that one. Its name is its own: inboxes are heard everywhere."""
        if node is None:
            running = [at for at, machine in enumerate(self.machines) if machine.boot is not None]
            node = self._client_rng.choice(running or list(range(len(self.machines))))
        self.connections += 1
        host = self.machines[node].host
        client = await connect(f"{name}a{self.connections}", PORT, host=host, make=AnywhereClient)
        client.replicas, client.server = self.replicas, self.machines[node].name
        return client
