"""The snippet of docs/raft.md runs, and is as short as it says."""

from __future__ import annotations

import re
from pathlib import Path

DOC = Path(__file__).parents[2] / "docs" / "raft.md"


def test_the_snippet_runs() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    lines = [line for line in snippet.splitlines() if line.strip()]
    assert len(lines) <= 60
    names: dict[str, object] = {}
    exec(compile(snippet, str(DOC), "exec"), names)
    assert names["state"] == {number: [b"hello", b"world"] for number in (1, 2, 3)}


def test_every_call_of_the_core_is_in_the_manual() -> None:
    from jetstore.raft.core import RaftCore

    shared = {"send", "post", "become_follower", "follow", "become_leader", "set_hard_state", "advance_commit"}
    shared |= {"append_from_leader", "truncate_from", "repair", "configuration_changed", "removed"}
    text = DOC.read_text()
    public = {name for name in vars(RaftCore) if not name.startswith("_")} - shared
    missing = sorted(name for name in public if f"`{name}" not in text)
    assert missing == []
