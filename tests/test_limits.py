"""Goal: bounds that do not fit together are refused when they are made, not met in production."""

from __future__ import annotations

import pytest

from jetstore.limits import KIB, MIB, Limits


def test_the_defaults_fit_together() -> None:
    Limits()


@pytest.mark.parametrize(
    "bounds",
    [
        {"block_bytes_max": 8 * MIB},
        {"journal_reappend_bytes": 8 * MIB},
        {"entry_bytes_max": 8 * MIB, "block_bytes_max": 8 * MIB},
        {"max_payload_bytes": 8 * MIB},
        {"journal_file_bytes": 4 * MIB},
        {"journal_file_bytes": 16 * MIB + 1},
        {"disk_resume_bytes": KIB},
    ],
    ids=lambda bounds: ", ".join(bounds),
)
def test_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        Limits(**bounds)
