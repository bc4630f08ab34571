"""One pull request: what the body of ``CONSUMER.MSG.NEXT`` says, and what is left of it."""

from __future__ import annotations

import json
from typing import Any

from jetstore.model.consumer import ConsumerConfig, PriorityPolicy
from jetstore.model.json import DecodeError, Duration, GoStruct, Int, Int64, decode_fields
from jetstore.model.levels import API_LEVEL
from jetstore.model.times import format_duration
from jetstore.node.delivery_format import pending_status, status

INT_DIGITS_MAX = 18
"""Longer numbers as a whole body mean nothing, as any other text."""
LEVEL_HEADER = b"Nats-Required-Api-Level:"


class Refused(Exception):
    """The request gets this status, a whole header block, instead of messages."""

    def __init__(self, block: bytes) -> None:
        super().__init__(block.decode("utf-8", "replace"))
        self.block = block


class PullRequest:
    """A request that waits for messages. Times are loop times in seconds; 0 = none."""

    __slots__ = (
        "bytes_left",
        "closing",
        "delivered",
        "expires_s",
        "flying",
        "group",
        "heartbeat_due_s",
        "heartbeat_s",
        "left",
        "max_bytes",
        "min_ack_pending",
        "min_pending",
        "no_wait",
        "pin_id",
        "priority",
        "target",
    )

    def __init__(
        self, target: bytes, left: int, expires_s: float, max_bytes: int, no_wait: bool, heartbeat_s: float
    ) -> None:
        self.target = target
        """The inbox."""
        self.left = left
        """Messages wanted and not reserved yet."""
        self.flying = 0
        """Messages reserved and not sent yet."""
        self.delivered = 0
        self.expires_s = expires_s
        self.max_bytes = max_bytes
        self.bytes_left = max_bytes
        self.no_wait = no_wait
        self.heartbeat_s = heartbeat_s
        self.heartbeat_due_s = 0.0
        self.closing = b""
        """Status line that ends it once nothing is flying."""
        self.group = ""
        self.min_pending = 0
        self.min_ack_pending = 0
        self.pin_id = ""
        self.priority = 0

    def is_above(self, pending: int, ack_pending: int) -> bool:
        """Whether one of its thresholds is reached, or it has none."""
        if not self.min_pending and not self.min_ack_pending:
            return True
        return 0 < self.min_pending <= pending or 0 < self.min_ack_pending <= ack_pending


def parse_request(reply: bytes, body: bytes, config: ConsumerConfig, now_s: float) -> PullRequest:
    """The request in a body. Raises ``Refused`` with the status line for what is no good."""
    text = body.strip()
    fields: dict[str, Any] = {}  # Any: JSON values
    if text.startswith(b"{"):
        fields = _decode(text)
    elif text.isdigit() and len(text) <= INT_DIGITS_MAX:
        fields["batch"] = int(text)
    batch = max(fields.get("batch", 0), 0) or 1
    expires_ns = fields.get("expires", 0)
    max_bytes = max(fields.get("max_bytes", 0), 0)
    heartbeat_ns = max(fields.get("idle_heartbeat", 0), 0)
    if heartbeat_ns and heartbeat_ns * 2 > expires_ns:
        raise Refused(status(b"400 Bad Request - heartbeat value too large"))
    if fields.get("priority", 0) not in range(10):
        raise Refused(status(b"400 Bad Request - Priority must be between 0 and 9"))
    complaint = _priority_complaint(fields, config)
    if complaint:
        raise Refused(status(b"400 Bad Request - " + complaint))
    if expires_ns < 0:
        raise Refused(pending_status(b"408 Request Timeout", batch, max_bytes))
    if config.max_batch > 0 and batch > config.max_batch:
        raise Refused(status(b"409 Exceeded MaxRequestBatch of %d" % config.max_batch))
    if config.max_expires > 0 and expires_ns > config.max_expires:
        raise Refused(status(b"409 Exceeded MaxRequestExpires of " + format_duration(config.max_expires).encode()))
    if config.max_bytes > 0 and max_bytes > config.max_bytes:
        raise Refused(status(b"409 Exceeded MaxRequestMaxBytes of %d" % config.max_bytes))
    expires_s = now_s + expires_ns / 1e9 if expires_ns else 0.0
    request = PullRequest(reply, batch, expires_s, max_bytes, bool(fields.get("no_wait")), heartbeat_ns / 1e9)
    if request.heartbeat_s:
        request.heartbeat_due_s = now_s + request.heartbeat_s
    if config.priority_policy is not PriorityPolicy.NONE:
        request.group = fields.get("group", "")
        request.min_pending = max(fields.get("min_pending", 0), 0)
        request.min_ack_pending = max(fields.get("min_ack_pending", 0), 0)
        request.pin_id = fields.get("id", "")
        request.priority = fields.get("priority", 0)
    return request


def _priority_complaint(fields: dict[str, Any], config: ConsumerConfig) -> bytes:  # Any: JSON values
    """What of a request does not fit the consumer's priority policy, or b"". A request without JSON is not asked."""
    policy = config.priority_policy
    thresholds = fields.get("min_pending", 0) > 0 or fields.get("min_ack_pending", 0) > 0
    if thresholds and policy is not PriorityPolicy.OVERFLOW:
        return b"Not a Overflow Priority consumer"
    if policy is not PriorityPolicy.NONE and fields:
        if not fields.get("group"):
            return b"Priority Group missing"
        if fields["group"] not in config.priority_groups:
            return b"Invalid Priority Group"
    if fields.get("id") and policy is not PriorityPolicy.PINNED_CLIENT:
        return b"Not a Pinned Client Priority consumer"
    return b""


class PullFields(GoStruct):
    """The fields of a pull request."""

    batch: Int = 0
    expires: Duration = 0
    max_bytes: Int = 0
    no_wait: bool = False
    idle_heartbeat: Duration = 0
    group: str = ""
    min_pending: Int64 = 0
    min_ack_pending: Int64 = 0
    id: str = ""
    priority: Int = 0


_PLAIN_TYPES: dict[str, type] = {"batch": int, "expires": int, "max_bytes": int, "no_wait": bool, "idle_heartbeat": int}


def _decode(text: bytes) -> dict[str, Any]:  # Any: JSON values
    """The known fields of a JSON body, whatever the case of their names; unknown ones are ignored."""
    fields: dict[str, Any]  # Any: JSON values
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = {"": None}
    # What clients send decodes without detours; the rest goes the way that knows Go's words for what is wrong.
    for name, value in fields.items():
        plain = _PLAIN_TYPES.get(name)
        if type(value) is not plain or not isinstance(value, int) or not -_INT_END <= value < _INT_END:
            try:
                return decode_fields(PullFields, text, "", strict=False)
            except DecodeError as problem:
                raise Refused(status(b"400 Bad Request - " + str(problem).encode())) from None
    return dict(fields)


_INT_END = 2**63


def level_refusal(header: bytes) -> bytes:
    """The status line for a request that needs a higher API level than ours, or b""."""
    for line in header.split(b"\r\n"):
        if line.startswith(LEVEL_HEADER):
            level = line[len(LEVEL_HEADER) :].strip()
            if not level.isdigit() or len(level) > INT_DIGITS_MAX or int(level) > API_LEVEL:
                return b"412 Required Api Level"
    return b""
