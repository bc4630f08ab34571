"""A stream as a plain list of dicts, one message after another, written without a look at the real one.

Subjects, headers and bodies are plain text. Nothing is fast, nothing is shared with the code under test.
"""

from __future__ import annotations

SECOND = 1_000_000_000
TICK = 50_000_000


def match(pattern: str, subject: str) -> bool:
    want, have = pattern.split("."), subject.split(".")
    while want and have:
        if want[0] == ">":
            return True
        if want[0] not in ("*", have[0]):
            return False
        want, have = want[1:], have[1:]
    return not want and not have


def block_size(headers: dict[str, str]) -> int:
    if not headers:
        return 0
    return len("NATS/1.0\r\n") + sum(len(f"{name}: {text}\r\n") for name, text in headers.items()) + 2


class Refused(Exception):
    """The text of a refusal."""


class StreamModel:
    def __init__(self, config: dict) -> None:
        self.config = config
        self.messages: list[dict] = []
        self.last_seq = max(config.get("first_seq", 0) - 1, 0)
        self.last_time = 0
        self.last_id = ""
        self.ids: dict[str, tuple[int, int]] = {}

    # -- helpers ------------------------------------------------------------------------------------------------------

    def limit(self, name: str) -> int:
        value = self.config.get(name, -1)
        return value if value > 0 else 10**18

    def size(self, subject: str, headers: dict[str, str], body: str) -> int:
        if self.config.get("storage") == "memory":
            return len(subject) + block_size(headers) + len(body) + 16
        return len(subject) + block_size(headers) + len(body) + 30 + (4 if headers else 0)

    def total(self) -> int:
        return sum(m["size"] for m in self.messages)

    def of(self, subject: str) -> list[dict]:
        return [m for m in self.messages if m["subject"] == subject]

    def drop(self, gone) -> int:
        before = len(self.messages)
        self.messages = [m for m in self.messages if not gone(m)]
        return before - len(self.messages)

    def wanted(self, subject: str) -> bool:
        return True

    # -- publishing ---------------------------------------------------------------------------------------------------

    def publish(self, subject: str, headers: dict[str, str], body: str, time: int, frame_time: int) -> object:
        """A sequence, ("duplicate", seq), or the text of the refusal. ``frame_time`` is what ids are judged by."""
        try:
            return self._publish(subject, headers, body, time, frame_time)
        except Refused as refused:
            return str(refused)

    def _publish(self, subject: str, headers: dict[str, str], body: str, time: int, frame_time: int) -> object:
        config = self.config
        if config.get("sealed"):
            raise Refused("invalid operation on sealed stream")
        if config.get("max_msg_size", -1) > 0 and block_size(headers) + len(body) > config["max_msg_size"]:
            raise Refused("message size exceeds maximum allowed")
        ttl = headers.get("Nats-TTL")
        if ttl and not config.get("allow_msg_ttl"):
            raise Refused("per-message TTL is disabled")
        window = config.get("duplicate_window", 0)
        msg_id = headers.get("Nats-Msg-Id", "")
        if msg_id in self.ids and msg_id and frame_time - self.ids[msg_id][1] < window:
            return ("duplicate", self.ids[msg_id][0])
        expected = headers.get("Nats-Expected-Last-Sequence")
        if expected is not None and int(expected) != self.last_seq:
            raise Refused(f"wrong last sequence: {self.last_seq}")
        expected = headers.get("Nats-Expected-Last-Subject-Sequence")
        if expected is not None:
            pattern = headers.get("Nats-Expected-Last-Subject-Sequence-Subject", subject)
            last = max([m["seq"] for m in self.messages if match(pattern, m["subject"])], default=0)
            if int(expected) != last:
                raise Refused(f"wrong last sequence: {last}")
        rollup = headers.get("Nats-Rollup")
        if rollup and (not config.get("allow_rollup_hdrs") or config.get("deny_purge")):
            raise Refused("rollup not permitted")
        size = self.size(subject, headers, body)
        per_subject = self.limit("max_msgs_per_subject")
        if config.get("discard") == "new":
            mine = self.of(subject)
            replaces = len(mine) + 1 > per_subject
            if replaces and config.get("discard_new_per_subject") and not rollup:
                raise Refused("maximum messages per subject exceeded")
            if len(self.messages) >= self.limit("max_msgs") and not replaces:
                raise Refused("maximum messages exceeded")
            if self.total() + size > self.limit("max_bytes") and (not replaces or mine[0]["size"] < size):
                raise Refused("maximum bytes exceeded")
        expected = headers.get("Nats-Expected-Last-Msg-Id")
        if expected is not None and expected != self.last_id:
            raise Refused(f"wrong last msg ID: {self.last_id}")

        self.last_seq += 1
        self.last_id = msg_id
        if msg_id and window:
            self.ids[msg_id] = (self.last_seq, frame_time)
        stored = self.wanted(subject)
        if stored:
            self.last_time = time
            expires: int | str | None = None
            if ttl == "never":
                expires = "never"
            elif ttl:
                expires = -(-(time + int(ttl) * SECOND) // TICK) * TICK
            self.messages.append(
                {"seq": self.last_seq, "subject": subject, "headers": headers, "body": body, "time": time,
                 "size": size, "expires": expires}
            )  # fmt: skip
            self.trim()
        if rollup == "sub":
            self.drop(lambda m: m["subject"] == subject and m["seq"] < self.last_seq + (not stored))
        elif rollup == "all":
            self.drop(lambda m: m["seq"] < self.last_seq + (not stored))
        return self.last_seq

    def trim(self) -> None:
        for subject in sorted({m["subject"] for m in self.messages}):
            while len(self.of(subject)) > self.limit("max_msgs_per_subject"):
                self.messages.remove(self.of(subject)[0])
        if self.config.get("discard") == "new":
            return
        while len(self.messages) > self.limit("max_msgs"):
            self.messages.pop(0)
        while self.total() > self.limit("max_bytes"):
            self.messages.pop(0)

    # -- removing -----------------------------------------------------------------------------------------------------

    def delete(self, seq: int) -> bool:
        return self.drop(lambda m: m["seq"] == seq) == 1

    def purge(self, pattern: str, seq: int, keep: int) -> int:
        if seq == 1:
            return 0
        hits = [m["seq"] for m in self.messages if not pattern or match(pattern, m["subject"])]
        if keep:
            hits = hits[:-keep]
        elif seq:
            hits = [hit for hit in hits if hit < seq]
            if not pattern or pattern == ">":
                self.last_seq = max(self.last_seq, seq - 1)
        return self.drop(lambda m: m["seq"] in hits)

    def expire(self, now: int) -> int:
        age = self.config.get("max_age", 0)
        return self.drop(
            lambda m: (
                (age and m["expires"] != "never" and m["time"] <= now - age)
                or (m["expires"] not in (None, "never") and m["expires"] <= now)
            )
        )

    def configure(self, changes: dict) -> None:
        self.config = self.config | changes
        self.trim()

    # -- what users see -----------------------------------------------------------------------------------------------

    def state(self) -> tuple:
        live = self.messages
        if not self.last_seq:
            return (0, 0, 0, 0, 0, 0, 0)
        first = live[0]["seq"] if live else self.last_seq + 1
        deleted = self.last_seq - first + 1 - len(live) if live else 0
        return (
            len(live), self.total(), first, live[0]["time"] if live else 0, self.last_seq,
            len({m["subject"] for m in live}), deleted,
        )  # fmt: skip
