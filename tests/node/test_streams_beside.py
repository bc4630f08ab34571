"""Goal: what a new stream is judged beside is what exists, also after a restart and after the end of an account."""

from __future__ import annotations

from damaged_store import current_server, play_over

from jepsen.sim.client import Client
from jepsen.sim.world import World
from jetstore.errors import ApiError
from jetstore.model.infos import AccountLimits
from jetstore.model.server_limits import ServerLimits
from jetstore.model.stream import StorageType, StreamConfig
from jetstore.model.stream_checks import checked_stream
from jetstore.node.streams_api import StreamsApi

SERVER = ServerLimits(max_storage_bytes=1000)


def api_of(world: World, account: str, *, is_only: bool = False) -> StreamsApi:
    limits = AccountLimits(max_streams=3)
    return StreamsApi(current_server(world).node, SERVER, limits, account=account, is_only=is_only)


async def made(api: StreamsApi, name: str, subject: str, max_bytes: int = 100, **fields: object) -> int:
    """Create it; the code of the refusal, or 0."""
    config = StreamConfig.model_validate({"name": name, "subjects": (subject,), "max_bytes": max_bytes, **fields})
    try:
        await api.create_stream(checked_stream(config, server=SERVER))
    except ApiError as error:
        return error.err_code
    return 0


def test_after_a_restart_and_the_end_of_an_account_new_streams_are_judged_beside_what_exists() -> None:
    async def story(world: World, client: Client) -> None:
        first = api_of(world, "A")
        assert await made(first, "K", "a.>") == 0
        assert await made(first, "L", "b.*", 300) == 0
        assert await made(api_of(world, "B"), "K", "a.>", 500) == 0
        for _ in range(2):
            first, second = api_of(world, "A"), api_of(world, "B")
            assert await made(first, "M", "b.>") == 10065
            assert await made(first, "M", "c", 101) == 10047
            assert await made(first, "M", "c", 101, storage=StorageType.MEMORY) == 0
            assert await made(first, "N", "d", 0) == 10027
            assert first.stream_names() == ("K", "L", "M")
            assert first.stream_names("*.x") == ["K", "L"]
            assert first.account_info().streams == 3
            assert await made(second, "L", "b.*", 101) == 10047
            await first.delete_stream("M")
            world.machine.kill(0.1)
            await world.up()
        first, second = api_of(world, "A"), api_of(world, "B")
        await first.delete_streams()
        assert not first.stream_names()
        assert await made(second, "L", "b.*", 501) == 10047
        assert await made(second, "L", "b.*", 500) == 0
        assert await made(first, "O", "a.>", 0, storage=StorageType.MEMORY) == 0

    play_over(None, story)


def test_streams_with_plain_keys_are_the_only_accounts_too() -> None:
    async def story(world: World, client: Client) -> None:
        assert await made(api_of(world, "$G"), "K", "a.>", 600) == 0
        only = api_of(world, "A", is_only=True)
        for _ in range(2):
            assert await made(only, "L", "a.b") == 10065
            assert await made(only, "L", "b", 401) == 10047
            assert await made(only, "L", "b", 400) == 0
            assert only.stream_names() == ("K", "L")
            await only.update_stream(checked_stream(StreamConfig(name="K", subjects=("b.>",)), is_create=False), False)
            assert only.stream_names("a.b") == []
            assert only.stream_names("*.b") == ["K"]
            for name in ("K", "L"):
                await only.delete_stream(name)
            assert not only.stream_names()
            assert await made(api_of(world, "$G"), "K", "a.>", 600) == 0

    play_over(None, story)
