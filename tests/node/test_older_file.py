"""Goal: whatever single file is put back as it was some time ago, a start serves everything or says what is wrong.

===============  =====================================================================================================
IDENTITY         exact: the other copy is of a later start, and heads say how far the journal was
HEAD             exact: the journal names the hash that counts, and the other copy has it; both: refused
segment          the sequences that are missing are named
index            exact: built anew from the messages
journal          refused: it ends before a block that IDENTITY or a head names (``test_older_journal.py``)
===============  =====================================================================================================
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import pytest
from damaged_store import LIMITS, current_server, play_over, put, small_store

from jepsen.sim.client import ApiFailure, Client
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World
from jetstore.node.examine import examine, verify

EARLIER, LAST = 20, 40


async def goes_on(world: World, client: Client) -> None:
    """More in segments under a checkpoint, and some above it in the journal."""
    await put(client, EARLIER + 1, LAST - 4)
    server = current_server(world)
    for group in (server.node.meta, *server.node.streams.values()):
        await server.node.storage.checkpoint(group)
    await put(client, LAST - 3, LAST)
    await asyncio.sleep(0.5)


@cache
def stores() -> tuple[SimVfs, SimVfs]:
    earlier = small_store(EARLIER - 5, 5)
    later, _ = play_over(earlier, goes_on)
    return earlier, later


def put_back(paths: list[str], gone: list[str]) -> SimVfs:
    earlier, later = stores()
    vfs = later.clone()
    for path in gone:
        vfs.lose(path)
    for path in paths:
        if path in vfs.files():
            vfs.lose(path)
        handle = vfs.open(path, create=True)
        vfs.pwrite(handle, [earlier.peek(path)], 0)
        vfs.fsync(handle)
        vfs.close(handle)
        vfs.fsync_dir(path.rpartition("/")[0])
    return vfs


def older_files() -> list[str]:
    """Files that are still there, and were something else."""
    earlier, later = stores()
    there = set(later.files())
    return [path for path in earlier.files() if path in there and earlier.peek(path) != later.peek(path)]


async def all_of_it(world: World, client: Client) -> list[int]:
    """The sequences that are missing; an answer of the server that is an error counts as a definite refusal."""
    info = await client.api("STREAM.INFO.S")
    assert info["state"]["last_seq"] <= LAST
    missing = []
    for seq in range(1, LAST + 1):
        try:
            message: Any = await client.api("STREAM.MSG.GET.S", {"seq": seq})
        except ApiFailure as failure:
            missing.append(seq if failure.err_code == 10037 else 0)
            continue
        assert message["message"]["seq"] == seq
    return missing


def outcome(paths: list[str], gone: list[str] | None = None) -> str:
    """What a start over a store makes of older copies of these files, and without those that came later."""
    vfs = put_back(paths, gone or [])
    report, files = examine(vfs.clone(), LIMITS)
    if report.journal is not None:
        verify(vfs.clone(), LIMITS, report)
    files.close()
    try:
        _, missing = play_over(vfs, all_of_it)
    except (AssertionError, ApiFailure):
        assert not report.is_sound, f"{paths}: not served, and nobody says why"
        return "refused"
    if not missing:
        return "exact"
    assert not report.is_sound, f"{paths}: {missing} are missing without a word"
    return "named"


def kind_of(path: str) -> str:
    if "/segments/" in path:
        return "segment"
    return "HEAD" if "HEAD" in path else path.partition("/")[0].partition(".")[0]


def test_no_single_file_of_earlier_makes_less_of_a_store_without_a_word() -> None:
    classes: dict[str, set[str]] = {}
    for path in older_files():
        classes.setdefault(kind_of(path), set()).add(outcome([path]))
    assert classes == {"IDENTITY": {"exact"}, "HEAD": {"exact"}, "segment": {"named"}, "index": {"exact"}}


@pytest.mark.parametrize(
    ("kinds", "what"),
    [
        ({"IDENTITY"}, "exact"),  # a lone server owes nobody its boot counter; heads say how far the journal was
        ({"HEAD"}, "refused"),
        ({"HEAD", "segment", "index"}, "refused"),
        ({"journal"}, "refused"),
        ({"journal", "IDENTITY"}, "refused"),
        ({"journal", "index", "segment"}, "refused"),
    ],
)
def test_nor_do_all_files_of_some_classes(kinds: set[str], what: str) -> None:
    earlier, later = stores()
    again = [path for path in earlier.files() if kind_of(path) in kinds]
    gone = [path for path in later.files() if kind_of(path) in kinds and path not in again]
    assert outcome(again, gone) == what
