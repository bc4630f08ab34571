"""Flipped bits in every class of file of a stopped store. More: ``python -m jepsen real flip --messages 100000``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from deep import IS_DEEP

from jepsen.real import flip
from jepsen.real.process import JETSTORE


@pytest.mark.real
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["stop", "kill"] if IS_DEEP else ["stop"])
def test_jetstore_serves_only_what_was_stored(how: str, tmp_path: Path, require_server: Callable[[str], None]) -> None:
    require_server(JETSTORE)
    messages, trials = (100_000, 6) if IS_DEEP else (12_000, 1)
    flips = (1, 1, 8) if IS_DEEP else (4,)
    reads = messages if IS_DEEP else 300
    findings, done = flip.run(JETSTORE, messages, 1, trials=trials, flips=flips, how=how, reads=reads, folder=tmp_path)
    assert not findings.counts, findings.examples
    classes = {trial.file_class for trial in done}
    assert {"journal", "segments", "heads", "chunks", "identity", "index"} <= classes
    assert all(trial.published for trial in done if trial.outcome == "starts" and trial.file_class == "identity")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("jetstore/journal/00000000000000000001.jnl", "journal"),
        ("jetstore/groups/2/segments/00000000000000000001.seg", "segments"),
        ("jetstore/groups/2/HEAD.a", "heads"),
        ("jetstore/index/data.mdb", "index"),
        ("jetstore/IDENTITY.b", "identity"),
        ("jetstream/$G/streams/S/msgs/1.blk", "segments"),
        ("jetstream/$G/streams/S/meta.inf", "heads"),
        ("jetstream/$G/streams/S/obs/c/meta.inf", "consumers"),
        ("jetstore/LOCK", "other"),
    ],
)
def test_classes_of_files(path: str, name: str) -> None:
    assert flip.file_class(path) == name


def test_the_used_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10 + bytes(3 << 20))
    assert flip.used_bytes(path) == 10
    path.write_bytes(bytes(100))
    assert flip.used_bytes(path) == 0
