"""I: messages are deleted, purged and evicted by limits; what was removed stays away, nothing else goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from jepsen.checker import stream as checks
from jepsen.history import FinalStream
from jepsen.sim.client import ApiFailure, Client, NoResponders, NotSent
from jepsen.workload.base import NOT_FOUND, Publisher, Setting, pause, read_to_end

NO_MESSAGE = frozenset([NOT_FOUND, 10043, 10057])


class Removal:
    """Workload I."""

    def __init__(self, setting: Setting, name: str = "I") -> None:
        self.setting, self.name = setting, name
        rng = setting.rng
        self.subjects = [f"{name}.{number}" for number in range(3)]
        self.keep_last = rng.choice((0, 0, 50))
        self.keep_per_subject = rng.choice((0, 0, 10)) if not self.keep_last else 0
        self.config: dict[str, Any] = {"name": name, "subjects": [f"{name}.>"]}
        if self.keep_last:
            self.config["max_msgs"] = self.keep_last
        if self.keep_per_subject:
            self.config["max_msgs_per_subject"] = self.keep_per_subject
        self.final: FinalStream | None = None

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", self.config)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        return [self._publish, self._publish, self._remove]

    async def _publish(self, client: Client, process: int) -> None:
        rng = self.setting.rng
        await Publisher(self.setting, self.name, client, process).bursts(lambda: rng.choice(self.subjects))

    async def _remove(self, client: Client, process: int) -> None:
        setting, rng = self.setting, self.setting.rng
        while not setting.is_over():
            await pause(setting)
            acked = setting.acked(self.name)
            if not acked:
                continue
            seq = rng.choice(acked)
            kind = rng.choice(("delete",) * 10 + ("purge", "purge_subject", "purge_seq", "purge_keep"))
            args: dict[str, Any]
            body: dict[str, Any]
            if kind == "delete":
                args = {"seq": seq}
                call, body = "MSG.DELETE", {"seq": seq, "no_erase": rng.random() < 0.5}
            else:
                args, call = {"below_seq": None}, "PURGE"
                body = {}
                if kind == "purge_subject":
                    args["subject"] = body["filter"] = rng.choice(self.subjects)
                elif kind == "purge_seq":
                    args["below_seq"] = body["seq"] = seq
                elif kind == "purge_keep":
                    args["keep"] = body["keep"] = 5
            operation = setting.history.begin(process, "remove", stream=self.name, **args)
            try:
                await client.api(f"STREAM.{call}.{self.name}", body)
            except ApiFailure as error:
                operation.fail(str(error))
            except (NotSent, NoResponders) as error:
                operation.fail(str(error))
                raise
            else:
                operation.ok()

    async def finish(self, client: Client) -> None:
        self.final = await read_to_end(self.setting, client, self.name)

    def check(self) -> list[str]:
        assert self.final is not None
        history, final = self.setting.history, self.final
        removals = checks.Removals(history, self.name, keep_last=self.keep_last, keep_per_subject=self.keep_per_subject)
        allowed = final.unreadable if self.setting.is_damaged else ()
        problems = [
            *checks.check_lost(history, final, removals, allowed),
            *checks.check_unexpected(history, final),
            *checks.check_phantom(history, final),
            *checks.check_dup_seq(history, final),
            *checks.check_dup_msg(history, final),
            *checks.check_order(history, final),
            *checks.check_gap(history, final, removals, allowed),
            *checks.check_contents(final),
            *checks.check_removed(history, final, removals),
        ]
        if self.keep_last and not final.is_halted and len(final.messages) > self.keep_last:
            problems.append(f"limit: {len(final.messages)} messages, {self.keep_last} allowed")
        if self.keep_per_subject and not final.is_halted:
            counts = Counter(message.subject for message in final.messages.values())
            problems += [
                f"limit: {count} messages of {subject}, {self.keep_per_subject} allowed"
                for subject, count in sorted(counts.items())
                if count > self.keep_per_subject
            ]
        return problems
