"""B: KV keys as registers: put, strong get, compare-and-set, create and delete on a few keys, judged per key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from jepsen.checker import stream as checks
from jepsen.checker.linearizable import Step, check_register
from jepsen.history import NEVER_NS, OK, FinalStream, Operation, value_of
from jepsen.sim.client import ApiFailure, Client
from jepsen.workload.base import Publisher, Setting, get, idle, pause, read_stream

OPERATIONS_PER_KEY = 120
WRONG_LAST = frozenset([10071, 10164])


class Register:
    """Workload B."""

    def __init__(self, setting: Setting, name: str = "KV_B") -> None:
        self.setting, self.name = setting, name
        self.depth = setting.rng.choice((1, 1, 3, 10))
        self.clients = setting.rng.randint(2, 5)
        self.config = {
            "name": name,
            "subjects": [f"$KV.{name}.>"],
            "max_msgs_per_subject": self.depth,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": setting.rng.random() < 0.5,
        }
        self.final: FinalStream | None = None
        self._used = 0

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", self.config)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        return [self._work] * self.clients

    def _key(self) -> str:
        """One of three keys in use; they are replaced by fresh ones so that each history stays short."""
        self._used += 1
        generation = self._used // (3 * OPERATIONS_PER_KEY)
        return f"$KV.{self.name}.k{generation}-{self.setting.rng.randrange(3)}"

    async def _work(self, client: Client, process: int) -> None:
        setting, rng = self.setting, self.setting.rng
        publisher = Publisher(setting, self.name, client, process)
        revisions: dict[str, int] = {}
        while publisher.may_go_on:
            key = self._key()
            kind = rng.choice(("get", "get", "put", "cas", "cas", "create", "delete"))
            if kind == "get":
                await self._get(client, process, key, revisions)
            else:
                expected = None
                if kind == "create":
                    expected = 0
                elif kind == "cas" or rng.random() < 0.3:
                    expected = revisions.get(key, 0)
                headers = {} if expected is None else {"Nats-Expected-Last-Subject-Sequence": str(expected)}
                if kind == "delete":
                    headers["KV-Operation"] = "DEL"
                operation = await publisher.one(key, publisher.value(), headers, kind=kind, expected=expected)
                if operation.outcome == OK:
                    revisions[key] = operation.result["seq"]
                elif operation.outcome == "info":
                    return
            await pause(setting)
        await idle(setting)

    async def _get(self, client: Client, process: int, key: str, revisions: dict[str, int]) -> None:
        operation = self.setting.history.begin(process, "get", stream=self.name, key=key)
        try:
            found = await get(client, self.name, {"last_by_subj": key})
        except ApiFailure as error:
            operation.fail(str(error))
            return
        operation.ok(seen=[found] if found else [])
        revisions[key] = found.seq if found else 0

    async def finish(self, client: Client) -> None:
        history = self.setting.history
        self.final = await read_stream(client, self.name, self.setting.last_acked(self.name))
        if self.final.is_halted:
            return
        keys = sorted({op.args["subject"] for op in history.of("publish") if op.args["stream"] == self.name})
        for key in keys:
            await self._get(client, 0, key, {})

    def check(self) -> list[str]:
        assert self.final is not None
        history, final = self.setting.history, self.final
        removals = checks.Removals(history, self.name, keep_per_subject=self.depth)
        allowed = final.unreadable if self.setting.is_damaged else ()
        problems = [
            *checks.check_lost(history, final, removals, allowed),
            *checks.check_unexpected(history, final),
            *checks.check_phantom(history, final),
            *checks.check_dup_seq(history, final),
            *checks.check_dup_msg(history, final),
            *checks.check_contents(final),
            *checks.check_order(history, final),
        ]
        for key, steps in self._steps().items():
            verdict, told = check_register(steps)
            if verdict is False:
                problems.append(f"lin: {key}: {told}")
            elif verdict is None:
                problems.append(f"lin-unknown: {key}: {told}")
        counts: dict[str, int] = {}
        for message in final.messages.values():
            counts[message.subject] = counts.get(message.subject, 0) + 1
        problems += [
            f"limit: {count} revisions of {key}, {self.depth} kept"
            for key, count in counts.items()
            if count > self.depth
        ]
        return problems

    def _steps(self) -> dict[str, list[Step]]:
        """The history of each key as register operations. A revision stands for the value that has it."""
        history = self.setting.history
        values: dict[int, str] = {}
        for operation in history.operations:
            if operation.args.get("stream") != self.name:
                continue
            if operation.f == "publish" and operation.outcome == OK:
                values[operation.result["seq"]] = operation.args["value"]
            for message in operation.seen:
                values[message.seq] = value_of(message.data) or "?"
        steps: dict[str, list[Step]] = {}
        for operation in history.operations:
            if operation.args.get("stream") == self.name:
                step = self._step(operation, values)
                if step is not None:
                    steps.setdefault(operation.args.get("key") or operation.args["subject"], []).append(step)
        return steps

    def _step(self, operation: Operation, values: dict[int, str]) -> Step | None:
        start, end = operation.start_ns, operation.end_ns
        if operation.f == "get":
            if operation.outcome != OK:
                return None
            value = value_of(operation.seen[0].data) if operation.seen else None
            return Step("read", value, None, start, end, operation)
        if operation.f != "publish":
            return None
        revision = operation.args["expected"]
        expected = None if not revision else values.get(revision, f"revision {revision}")
        if operation.outcome == "fail":
            if revision is None or operation.result.get("err_code") not in WRONG_LAST:
                return None
            return Step("cas_fail", None, expected, start, end, operation)
        end = end if operation.outcome == OK else NEVER_NS
        kind = "write" if revision is None else "cas"
        return Step(kind, operation.args["value"], expected, start, end, operation)
