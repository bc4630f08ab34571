"""Goal: each promise about streams and consumers has a defect that breaks it, and the harness finds that.

The list is in ``stream_defects.py``. Each is hunted from a seed that shows it; with ``JETSTORE_DEEP=1`` from the first.
"""

from __future__ import annotations

import pytest
from deep import IS_DEEP
from stream_defects import BUDGET, DEFECTS, Defect, hunt


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_found(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hunt(defect, monkeypatch, 0 if IS_DEEP else defect.seed, BUDGET + IS_DEEP * defect.seed)
    assert found.seeds, f"not found; only {found.others}"


def test_every_promise_has_a_defect() -> None:
    broken = {word.rstrip(",") for defect in DEFECTS for word in defect.breaks.split()}
    assert broken >= {f"S{number}" for number in range(1, 11)} | {"C1", "C2", "C3"}
