"""Golden scripts: each file in tests/golden/raft is a scenario with what happens in it.

``pytest tests/raft/test_golden.py --rewrite`` writes what happens now; the difference is for people to judge.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from raft_script import run_script

SCRIPTS = sorted((Path(__file__).parent.parent / "golden" / "raft").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    now = run_script(text)
    if request.config.getoption("--rewrite"):
        path.write_text(now)
    else:
        assert now == text
