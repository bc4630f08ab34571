"""H: streams and consumers under a few names are made, changed and deleted by several clients; one stream works on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from jepsen.checker import stream as checks
from jepsen.checker.admin import check_admin
from jepsen.history import FinalStream, Operation
from jepsen.sim.client import ApiFailure, Client, NoResponders, NotSent
from jepsen.workload.base import Publisher, Setting, idle, pause, read_to_end

CONSUMERS = ("c0", "c1")
ABSENT = frozenset([10014, 10059, 10149])
"""No consumer, no stream, no consumer to be updated."""
TAKEN = frozenset([10058, 10148])
"""A stream, a consumer of that name has another configuration."""
UNAVAILABLE = 10008


class Admin:
    """Workload H."""

    def __init__(self, setting: Setting, name: str = "H") -> None:
        self.setting, self.name = setting, name
        self.others = (f"{name}1", f"{name}2")
        """Streams that come and go."""
        self.config = {"name": name, "subjects": [f"{name}.>"]}
        self.final: FinalStream | None = None
        self._made = 0

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", self.config)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        return [self._publish, *[self._streams] * self.setting.rng.randint(1, 3), self._consumers, self._consumers]

    async def _publish(self, client: Client, process: int) -> None:
        setting = self.setting
        publisher = Publisher(setting, self.name, client, process)
        while publisher.may_go_on:
            publisher.begin(f"{self.name}.x", publisher.value(), {})
            await publisher.below(5)
            await pause(setting)
        await publisher.below(1)
        await idle(setting)

    async def _streams(self, client: Client, process: int) -> None:
        setting, rng = self.setting, self.setting.rng
        while self._may_go_on:
            name = rng.choice(self.others)
            kind = rng.choice(("create", "create", "update", "delete"))
            call, body = f"STREAM.{kind.upper()}.{name}", None
            version = self._version()
            if kind != "delete":
                body = {"name": name, "subjects": [f"{name}.>"], "description": version, **self._replicas(client)}
            await self._ask(client, process, kind, name, version, call, body)
            await pause(setting)
        await idle(setting)

    async def _consumers(self, client: Client, process: int) -> None:
        setting, rng = self.setting, self.setting.rng
        while self._may_go_on:
            name, stream, version = rng.choice(CONSUMERS), self.name, self._version()
            kind = rng.choice(("create", "create", "update", "delete"))
            if kind == "delete":
                await self._ask(client, process, kind, name, version, f"CONSUMER.DELETE.{stream}.{name}", None)
            else:
                config = {"durable_name": name, "name": name, "ack_policy": "explicit", "description": version}
                body = {"stream_name": stream, "config": config, "action": kind}
                await self._ask(client, process, kind, name, version, f"CONSUMER.CREATE.{stream}.{name}", body)
            await pause(setting)
        await idle(setting)

    @property
    def _may_go_on(self) -> bool:
        return not self.setting.is_over() and self._made < 2 * self.setting.publishes_max

    def _version(self) -> str:
        self._made += 1
        return f"v{self._made}"

    def _replicas(self, client: Client) -> dict[str, int]:
        guide = getattr(client, "guide", None)
        return {} if guide is None else {"num_replicas": guide.replicas}

    async def _ask(
        self, client: Client, process: int, kind: str, name: str, version: str, call: str, body: dict[str, Any] | None
    ) -> Operation:
        """One change of what is under a name; refusals that say something about it say it in the history."""
        operation = self.setting.history.begin(
            process, "admin", stream=self.name, name=name, kind=kind, version=version
        )
        try:
            answer = await client.api(call, body)
        except ApiFailure as error:
            operation.fail(str(error), **_observed(error.err_code))
        except (NotSent, NoResponders) as error:
            operation.fail(str(error))
            raise
        else:
            shown = answer.get("config", {}).get("description", version)
            if shown == version:
                operation.ok()
            else:  # a client of a cluster that is refused looks whether the stream is there
                operation.fail(f"not created, there is {shown}")
        return operation

    async def finish(self, client: Client) -> None:
        setting = self.setting
        self.final = await read_to_end(setting, client, self.name)
        if setting.is_damaged:
            return
        for name in CONSUMERS:
            await self._look(client, name, f"CONSUMER.INFO.{self.name}.{name}")
        there = (await client.api("STREAM.NAMES"))["streams"] or []
        for name in self.others:
            operation = setting.history.begin(0, "admin", stream=self.name, name=name, kind="look", version="")
            operation.ok(there=name in there)

    async def _look(self, client: Client, name: str, call: str) -> None:
        operation = self.setting.history.begin(0, "admin", stream=self.name, name=name, kind="look", version="")
        try:
            config = (await client.api(call))["config"]
        except ApiFailure as error:
            if error.err_code not in ABSENT:
                raise
            operation.ok(there=False)
        else:
            operation.ok(there=True, shown=config["description"])

    def check(self) -> list[str]:
        assert self.final is not None
        history, final = self.setting.history, self.final
        removals = checks.Removals(history, self.name)
        allowed = final.unreadable if self.setting.is_damaged else ()
        return [
            *checks.check_lost(history, final, removals, allowed),
            *checks.check_unexpected(history, final),
            *checks.check_phantom(history, final),
            *checks.check_dup_seq(history, final),
            *checks.check_order(history, final),
            *checks.check_gap(history, final, removals, allowed),
            *checks.check_contents(final),
            *([] if self.setting.is_damaged else check_admin(history, self.name)),
        ]


def _observed(err_code: int) -> dict[str, bool]:
    """What a refusal says of the name."""
    return {"there": False} if err_code in ABSENT else {"there": True} if err_code in TAKEN else {}
