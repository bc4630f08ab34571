"""Records nats-server's answers to the scenario. Run by hand: ``python tests/server/jsapi/record_answers.py``."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

from api_oracle import ask_oracle
from api_scenario import requests

GOLDEN = Path(__file__).parents[2] / "golden" / "jsapi" / "answers.json"


def main() -> None:
    """Write the golden file, one request and answer a line."""
    with tempfile.TemporaryDirectory() as directory:
        replies = asyncio.run(ask_oracle(requests(), Path(directory)))
    lines = [
        json.dumps({"asked": [subject, body[:200]], "reply": reply})
        for (subject, body), reply in zip(requests(), replies, strict=True)
    ]
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(lines)} answers")


if __name__ == "__main__":
    main()
