"""Hundreds of configurations under ``-t``: nats-server's answers, recorded, and ours.

``tests/golden/config/record_config_answers.py`` recorded them. Equal: exit code, texts and places. The order does not
count (nats-server's is random), nor how a value of the wrong type is called, nor which column of its line that has, nor
that the end of the file is shown as a NUL there. What we refuse as not supported counts as answered.
``deviations.txt`` lists every other difference, with its reason.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from server.config.errors import ConfigError
from server.config.reader import load_options

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "config"
NOT_SUPPORTED = "is not supported by this version of jetstore"
WRONG_TYPE = re.compile(r"(\S+:\d+):\d+: (interface conversion: .*|.* should be .*, not an? .*)")
GO_ONLY = "runtime error: invalid memory address or nil pointer dereference"


def recorder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record_config_answers", GOLDEN / "record_config_answers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECORDER = recorder()
ANSWERS: dict[str, dict[str, object]] = json.loads((GOLDEN / "answers.json").read_text(encoding="utf-8"))
DEVIATIONS = frozenset(
    line
    for line in (GOLDEN / "deviations.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("%%")
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("config")
    RECORDER.lay_out(made)
    return made


def ours(directory: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    monkeypatch.chdir(directory)
    (directory / "x.conf").write_bytes(RECORDER.content(case))
    try:
        options = load_options(Path("x.conf"), RECORDER.ENVIRONMENT, is_test=True)
    except ConfigError as error:
        return 1, [line for line in str(error).splitlines() if line]
    return 0, [f"configuration file x.conf is valid ({options.config_digest})"]


def told(lines: object) -> list[str]:
    """Lines in the form in which they are compared."""
    assert isinstance(lines, list)
    kept = [line.replace("\0", " ") for line in lines if not line.endswith(GO_ONLY)]
    return sorted(WRONG_TYPE.sub(r"\1: wrong type", line) for line in kept)


@pytest.mark.parametrize("case", [case for case in RECORDER.cases() if case in ANSWERS])
def test_same_as_nats_server(directory: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, lines = ours(directory, case, monkeypatch)
    answer = ANSWERS[case]
    is_same = code == answer["code"] and told(lines) == told(answer["lines"])
    if case in DEVIATIONS:
        assert not is_same, "no deviation any more: take it off deviations.txt"
        return
    if code == 1 and any(NOT_SUPPORTED in line for line in lines):
        return
    assert (code, told(lines)) == (answer["code"], told(answer["lines"]))


def test_the_files_belong_together() -> None:
    cases = RECORDER.cases()
    assert len(cases) == len(set(cases))
    assert set(cases) == set(ANSWERS) | RECORDER.NOT_ASKED
    assert set(cases) >= DEVIATIONS
    assert sum(answer["code"] == 1 for answer in ANSWERS.values()) >= 200
