"""Every ``-ERR`` text and every reason a connection ends with, verbatim as nats-server's clients and tools know them.

Clients compare these texts, so none is ever invented.
"""

from __future__ import annotations

from enum import Enum


class CloseReason(Enum):
    """Why a connection ended: the words of /connz."""

    CLIENT_CLOSED = "Client Closed"
    AUTHENTICATION_TIMEOUT = "Authentication Timeout"
    AUTHENTICATION_FAILURE = "Authentication Failure"
    AUTHENTICATION_EXPIRED = "Authentication Expired"
    TLS_HANDSHAKE_FAILURE = "TLS Handshake Failure"
    SLOW_CONSUMER_PENDING_BYTES = "Slow Consumer (Pending Bytes)"
    SLOW_CONSUMER_WRITE_DEADLINE = "Slow Consumer (Write Deadline)"
    WRITE_ERROR = "Write Error"
    READ_ERROR = "Read Error"
    PARSE_ERROR = "Parse Error"
    STALE_CONNECTION = "Stale Connection"
    PROTOCOL_VIOLATION = "Protocol Violation"
    BAD_CLIENT_PROTOCOL_VERSION = "Bad Client Protocol Version"
    MAXIMUM_CONNECTIONS_EXCEEDED = "Maximum Connections Exceeded"
    MAXIMUM_ACCOUNT_CONNECTIONS_EXCEEDED = "Maximum Account Connections Exceeded"
    MAXIMUM_PAYLOAD_EXCEEDED = "Maximum Message Payload Exceeded"
    MAXIMUM_CONTROL_LINE_EXCEEDED = "Maximum Control Line Exceeded"
    SERVER_SHUTDOWN = "Server Shutdown"
    MESSAGE_HEADER_VIOLATION = "Message Header Violation"
    NO_RESPONDERS_REQUIRES_HEADERS = "No Responders Requires Headers"
    KICKED = "Kicked"


UNKNOWN_OPERATION = "Unknown Protocol Operation"
AUTHORIZATION_VIOLATION = "Authorization Violation"
AUTHENTICATION_TIMEOUT = "Authentication Timeout"
USER_AUTHENTICATION_EXPIRED = "User Authentication Expired"
ACCOUNT_AUTHENTICATION_EXPIRED = "Account Authentication Expired"
MAXIMUM_CONNECTIONS_EXCEEDED = "maximum connections exceeded"
MAXIMUM_ACCOUNT_CONNECTIONS_EXCEEDED = "maximum account active connections exceeded"
MAXIMUM_PAYLOAD_VIOLATION = "Maximum Payload Violation"
MAXIMUM_CONTROL_LINE_EXCEEDED = "maximum control line exceeded"
STALE_CONNECTION = "Stale Connection"
INVALID_CLIENT_PROTOCOL = "invalid client protocol"
NO_RESPONDERS_REQUIRES_HEADERS = "no responders requires headers support"
INVALID_SUBJECT = "Invalid Subject"
INVALID_PUBLISH_SUBJECT = "Invalid Publish Subject"
MAXIMUM_SUBSCRIPTIONS_EXCEEDED = "maximum subscriptions exceeded"

OK_LINE = b"+OK\r\n"
PING_LINE = b"PING\r\n"
PONG_LINE = b"PONG\r\n"


def error_line(text: str | bytes) -> bytes:
    """``-ERR '<text>'`` as it goes out."""
    return b"-ERR '%b'\r\n" % (text.encode() if isinstance(text, str) else text)


def publish_violation(subject: bytes) -> bytes:
    """Text for a publish that is not permitted."""
    return b'Permissions Violation for Publish to "%b"' % subject


def reply_violation(reply: bytes) -> bytes:
    """Text for a publish whose reply subject is reserved or not permitted."""
    return b'Permissions Violation for Publish with Reply of "%b"' % reply


def subscription_violation(subject: bytes, queue: bytes) -> bytes:
    """Text for a subscription that is not permitted."""
    if queue:
        return b'Permissions Violation for Subscription to "%b" using queue "%b"' % (subject, queue)
    return b'Permissions Violation for Subscription to "%b"' % subject


def too_many_tokens(subject: bytes) -> bytes:
    """Text for a subscription with more tokens than ``max_sub_tokens``."""
    return b'Permissions Violation for Subscription to "%b", too many tokens' % subject
