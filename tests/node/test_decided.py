"""What was done is never refused: not even where who led then cannot be sure any more a moment later."""

from __future__ import annotations

import pytest
from damaged_store import create, current_server, play_over

from jepsen.sim.client import Client, Unknown
from jepsen.sim.world import World
from jetstore.errors import NotNow
from jetstore.model.api_errors import api_error
from jetstore.node.group import Group
from jetstore.node.stream_group import StreamGroup

CONSUMER = {"stream_name": "OTHER", "config": {"durable_name": "c", "name": "c", "ack_policy": "explicit"}}
STREAM = {"name": "T", "subjects": ["t"]}


def test_a_consumer_that_was_set_or_reset_is_shown_whoever_leads_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unsure(group: Group) -> None:
        raise NotNow("leadership could not be confirmed")

    async def story(world: World, client: Client) -> None:
        await create(client)
        with monkeypatch.context() as patch:
            patch.setattr(Group, "confirm", unsure)
            made = await client.api("CONSUMER.CREATE.OTHER.c", CONSUMER)
            assert made["config"]["durable_name"] == "c"
            reset = await client.api("CONSUMER.RESET.OTHER.c", {"seq": 1})
            assert reset["reset_seq"] == 1
        assert (await client.api("CONSUMER.INFO.OTHER.c"))["name"] == "c"

    play_over(None, story)


def test_a_stream_that_was_made_and_cannot_be_shown_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(group: StreamGroup, request: object) -> None:
        raise api_error("JSClusterNotAvailErr")

    async def story(world: World, client: Client) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(StreamGroup, "info", gone)
            for call, config in (("CREATE", STREAM), ("UPDATE", STREAM | {"description": "new"})):
                with pytest.raises(Unknown):
                    await client.api(f"STREAM.{call}.T", config)
        assert (await client.api("STREAM.INFO.T"))["config"]["description"] == "new"
        assert current_server(world).node.streams

    play_over(None, story)
