"""The house rules that a machine can check: size of files, signs of rooms, where the real world may be touched."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(path for room in ("jetstore", "server", "jepsen") for path in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LINES_MAX, TEST_LINES_MAX = 600, 720
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
READS_DEEP = re.compile(r"environ\b.*\bJETSTORE_DEEP")
WORLD = frozenset(
    ["os", "time", "threading", "socket", "multiprocessing", "subprocess", "select", "signal", "tempfile"]
)
"""Modules through which code touches clock, disk, network or other processes."""
TOUCHES_THE_WORLD = {
    "jetstore": {
        "clock.py",
        *(f"store/{name}.py" for name in ("disk", "index", "index_check", "lock", "os_vfs", "writer_process")),
    },
    "server": {"run.py", "config/ports_file.py", "monitor/process.py", "monitor/varz.py"},
}
"""By package; ``server/cli`` and ``server/bench`` are programs of their own."""
PROGRAMS = ("cli/", "bench/")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*CODE, *TESTS], ids=name_of)
def test_a_file_is_short_enough_and_finished(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= (TEST_LINES_MAX if path in TESTS else LINES_MAX)
    if path != Path(__file__).resolve():
        assert UNFINISHED.search(text) is None


@pytest.mark.parametrize("path", [path for path in CODE if path.name == "__init__.py"], ids=name_of)
def test_a_room_has_a_sign(path: Path) -> None:
    sign = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert len(sign) >= 80, "what lives here, what it may import, where to start"


@pytest.mark.parametrize("package", sorted(TOUCHES_THE_WORLD))
def test_only_a_few_files_touch_the_world(package: str) -> None:
    """The simulator owns time, chance, disk and network: code reaches them through ports."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            if WORLD & {name.split(".")[0] for name in names}:
                found.add(str(path.relative_to(ROOT / package)))
    assert {name for name in found if not name.startswith(PROGRAMS)} - TOUCHES_THE_WORLD[package] == set()


def test_whether_tests_run_long_is_read_in_one_place() -> None:
    readers = [path.name for path in TESTS if READS_DEEP.search(path.read_text())]
    assert readers == ["deep.py"]
