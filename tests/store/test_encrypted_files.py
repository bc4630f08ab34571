"""What the other files of this folder prove of journal and segments, on encrypted stores."""

from __future__ import annotations

from itertools import count

import pytest
from test_compaction import test_everything_stays_the_same  # noqa: F401
from test_install_records import (  # noqa: F401
    test_any_range_in_any_pieces,
    test_received_files_survive_and_say_what_is_missing,
)
from test_journal_crashes import test_a_power_cut_at_every_boundary_times_every_subset  # noqa: F401
from test_journal_damage import (  # noqa: F401
    test_a_damaged_record_keeps_the_entries_before_the_damage,
    test_both_heads_of_a_block_unreadable_the_next_one_has_its_lines,
    test_each_byte_flipped,
    test_each_sector_zeroed_or_made_garbage,
)
from test_segment_damage import test_missing_and_short_files, test_unreadable_sectors  # noqa: F401

from jepsen.sim.vfs import SimVfs
from jetstore.store.keys import DataKey, Keys


@pytest.fixture(autouse=True, params=["chacha", "aes"])
def encrypted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    nonces = count(1)
    keys = Keys({1: DataKey(request.param, bytes(32))}, lambda size: next(nonces).to_bytes(size, "little"))
    monkeypatch.setattr(SimVfs, "keys", keys)
