"""Asks nats-server what it says to the configurations of ``cases.txt`` under ``-t``; writes ``answers.json``.

    python tests/golden/config/record_config_answers.py [path of nats-server]

Each answer is the exit code and the lines on standard error, the program's name taken off.
"""

from __future__ import annotations

import codecs
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = {
    "inc.conf": "max_payload: 5KB\n",
    "bad.conf": "debug: true\n foo: 1\n",
    "deep/one.conf": "include two.conf\n",
    "deep/two.conf": "debug: true\n",
    "deep/js.conf": "max_mem: 1G\n",
    "deep/var.conf": "port: $X\n",
}
ENVIRONMENT = {"NUMBER": "4333", "TEXT": '"1e5"', "LOOP": "$LOOP"}
NOT_ASKED = frozenset(("host: $LOOP",))
"""nats-server does not come back from these."""


def cases() -> list[str]:
    """The lines of ``cases.txt`` that are cases."""
    lines = (HERE / "cases.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("%%")]


def content(case: str) -> bytes:
    """What the file of a case holds."""
    return codecs.escape_decode(case.encode())[0]


def lay_out(directory: Path) -> None:
    """The files beside a case's file."""
    for name, text in FILES.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def ask(program: str, directory: Path, case: str) -> dict[str, object]:
    """What nats-server says to one case."""
    (directory / "x.conf").write_bytes(content(case))
    done = subprocess.run(
        [program, "-t", "-c", "x.conf"], cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, timeout=20
    )
    lines = [line for line in done.stderr.removeprefix("nats-server: ").splitlines() if line]
    return {"code": done.returncode, "lines": lines}


def main(program: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        lay_out(directory)
        answers = {case: ask(program, directory, case) for case in cases() if case not in NOT_ASKED}
    text = json.dumps(answers, indent=0, ensure_ascii=False)
    (HERE / "answers.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "nats-server")
