"""A node that was replaced as leader of the metadata, and does not know it yet, says nothing definite of streams."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from placing_world import Story, node_of, play

from jepsen.sim.client import ApiFailure, Client, NoResponders, NotSent, Unknown

UNAVAILABLE = 10008
CONSUMER = {"durable_name": "c", "ack_policy": "explicit"}


def config(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "subjects": [name.lower()], **more}


ABOUT_NEW: list[tuple[str, Any]] = [
    ("STREAM.INFO.{}", {}),
    ("STREAM.DELETE.{}", {}),
    ("STREAM.UPDATE.{}", "config"),
    ("STREAM.PURGE.{}", {}),
    ("STREAM.MSG.GET.{}", {"seq": 1}),
    ("STREAM.MSG.DELETE.{}", {"seq": 1}),
    ("STREAM.SNAPSHOT.{}", {"deliver_subject": "x"}),
    ("STREAM.LEADER.STEPDOWN.{}", {}),
    ("STREAM.PEER.REMOVE.{}", {"peer": "n1"}),
    ("CONSUMER.CREATE.{}.c", "consumer"),
    ("CONSUMER.INFO.{}.c", {}),
    ("CONSUMER.NAMES.{}", {}),
    ("CONSUMER.LIST.{}", {}),
    ("CONSUMER.DELETE.{}.c", {}),
    ("CONSUMER.PAUSE.{}.c", {"pause_until": "2040-01-01T00:00:00Z"}),
]
"""Asked of streams that the new leader has made."""
ABOUT_OLD: list[tuple[str, Any]] = [
    ("STREAM.CREATE.{}", "config"),
    ("STREAM.CREATE.{}", "other config"),
    ("STREAM.CREATE.X{}", "overlapping"),
    ("STREAM.RESTORE.{}", "restore"),
]
"""Asked of streams that the new leader has deleted."""


def body_of(name: str, body: Any) -> Any:
    bodies = {
        "config": config(name),
        "other config": config(name, max_msgs=5),
        "overlapping": config(f"X{name}", subjects=[name.lower()]),
        "consumer": {"stream_name": name, "config": CONSUMER},
        "restore": {"config": config(name), "state": {}},
    }
    return bodies[body] if isinstance(body, str) else body


async def outcome(client: Client, subject: str, body: Any) -> object:
    try:
        return await client.api(subject, body)
    except ApiFailure as failure:
        return failure.err_code
    except (Unknown, NoResponders, NotSent):
        return "nothing"


@pytest.mark.parametrize("part", range(3))
def test_it_answers_nothing_from_what_it_knew(part: int) -> None:
    about_new, about_old = ABOUT_NEW[part::3], ABOUT_OLD[part::3]

    async def story(s: Story) -> None:
        await s.until(s.meta_leader, "somebody leads")
        old = [f"OLD{i}" for i in range(len(about_old))]
        new = [f"NEW{i}" for i in range(len(about_new))]
        for name in [*old, "STAYS"]:
            await s.create(name, 1)
        first = await s.until(s.meta_leader, "somebody leads")
        names = [machine.name for machine in s.world.machines]
        at = next(i for i, machine in enumerate(s.world.machines) if node_of(machine) is first)
        client = await s.world.connect("there", at)
        s.world.links.partition([names[at]], [name for name in names if name != names[at]])

        def others() -> list[int]:
            leads = [i for i, m in enumerate(s.world.machines) if (n := node_of(m)) is not None and n.meta.serves]
            return [i for i in leads if i != at]

        beyond = await s.world.connect("beyond", (await s.until(others, "somebody else leads"))[0])
        changes = [beyond.api(f"STREAM.CREATE.{name}", config(name)) for name in new]
        changes += [beyond.api(f"STREAM.DELETE.{name}") for name in old]
        await asyncio.gather(*changes)
        assert first.meta.serves, "it has noticed already"
        asked = [(what.format(name), body_of(name, body)) for name, (what, body) in zip(new, about_new, strict=True)]
        asked += [(what.format(name), body_of(name, body)) for name, (what, body) in zip(old, about_old, strict=True)]
        asked += [("STREAM.NAMES", {})]
        answers = await asyncio.gather(*[outcome(client, *request) for request in asked])
        wrong = [
            (request[0], answer)
            for request, answer in zip(asked, answers, strict=True)
            if answer not in (UNAVAILABLE, "nothing")
        ]
        assert wrong == []
        s.world.links.join()
        await s.until(lambda: not first.meta.serves, "it notices")
        there = await s.ask("", lambda again: again.api("STREAM.NAMES"))
        assert there["streams"] == sorted([*new, "STAYS"])

    play(story, nodes=3)
