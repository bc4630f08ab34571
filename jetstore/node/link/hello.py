"""Hello: what two nodes tell each other first, and the definite reasons for which one refuses the other. Pure.

The dialler sends its hello, the acceptor answers with its own, the dialler says READY; either may say REFUSED instead.
Only the dialler's hello carries credentials: an acceptor tells nothing to somebody it does not know.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from jetstore.node.link.frames import FrameError
from jetstore.types import Buffer

MAGIC = b"JSLINK\x00\x00"
PROTOCOL_VERSION = 1

_FIXED = struct.Struct("<8sHBBIQ8s8sQQ")
_TEXTS = ("cluster_name", "cluster_id", "node_name", "advertise", "user", "password")
_NODE_ID_BYTES = 8

FOREIGN_STARTS = (b"INFO", b"CONN", b"PING", b"PONG", b"+OK\r", b"-ERR", b"RS+ ", b"SUB ", b"PUB ")
FOREIGN_REASON = "not wire-compatible with nats-server routes: every server of the cluster must be jetstore"


class Purpose(IntEnum):
    """What a connection is for."""

    RAFT = 1
    BULK = 2


class Reason(IntEnum):
    """Why a connection is refused; numbers are never reused."""

    PROTOCOL = 1
    VERSION = 2
    AUTHORIZATION = 3
    CLUSTER_NAME = 4
    CLUSTER_ID = 5
    SELF = 6
    DUPLICATE_NAME = 7
    OLD_DISK = 8
    """What the peer says contradicts what it said before: an old or cloned disk. Who is told so takes part no more."""
    TOO_MANY = 9
    STOPPING = 10
    FOREIGN = 11
    """Not one of ours: a nats-server, or something else altogether."""
    OVERTAKEN = 12
    """Words of a dead process: a later life of the node has connected meanwhile."""
    DISOWNED = 13
    """The refusing node was itself told that its disk is an old one."""


class Refused(Exception):
    """A peer must not be talked to. ``text`` is for logs on both sides."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


@dataclass(frozen=True, slots=True)
class Hello:
    """Who is there, in which life, with which disk."""

    purpose: Purpose
    cluster_name: str
    cluster_id: str
    """"" until the node belongs to a cluster."""
    node_id: str
    """16 hexadecimal digits."""
    node_name: str
    incarnation: int
    boot_counter: int
    boot_nonce: str
    """16 hexadecimal digits."""
    durable_lsn: int
    """Last durable block of its journal."""
    advertise: str = ""
    """host:port where others reach it; "" = unknown."""
    user: str = ""
    password: str = ""


def encode_hello(hello: Hello) -> bytes:
    """The body of a HELLO frame. ValueError if a text is longer than 65535 bytes."""
    out = bytearray(
        _FIXED.pack(
            MAGIC,
            PROTOCOL_VERSION,
            hello.purpose,
            0,
            hello.incarnation,
            0,
            bytes.fromhex(hello.node_id),
            bytes.fromhex(hello.boot_nonce),
            hello.boot_counter,
            hello.durable_lsn,
        )
    )
    for name in _TEXTS:
        text = getattr(hello, name).encode()
        if len(text) > 0xFFFF:
            raise ValueError(f"{name} of {len(text)} bytes")
        out += len(text).to_bytes(2, "little") + text
    return bytes(out)


def decode_hello(body: Buffer) -> Hello:
    """The hello in a HELLO frame. Refused: another version. FrameError: no hello."""
    data = bytes(body)
    if data[:8] != MAGIC or len(data) < 10:
        raise FrameError("no hello of ours")
    version = int.from_bytes(data[8:10], "little")
    if version != PROTOCOL_VERSION:
        raise Refused(
            Reason.VERSION, f"link protocol version {version} is unknown, this node speaks {PROTOCOL_VERSION}"
        )
    if len(data) < _FIXED.size:
        raise FrameError("short hello")
    _, _, purpose, flags, incarnation, zero, node_id, nonce, boot_counter, durable_lsn = _FIXED.unpack_from(data)
    if purpose not in (Purpose.RAFT, Purpose.BULK) or flags or zero:
        raise FrameError(f"unknown fields in a hello (purpose {purpose})")
    texts: dict[str, str] = {}
    at = _FIXED.size
    for name in _TEXTS:
        size = int.from_bytes(data[at : at + 2], "little")
        end = at + 2 + size
        if end > len(data):
            raise FrameError("short hello")
        try:
            texts[name] = data[at + 2 : end].decode()
        except UnicodeDecodeError:
            raise FrameError(f"{name} in a hello is not text") from None
        at = end
    if at != len(data):
        raise FrameError("long hello")
    return Hello(
        purpose=Purpose(purpose),
        node_id=node_id.hex(),
        incarnation=incarnation,
        boot_counter=boot_counter,
        boot_nonce=nonce.hex(),
        durable_lsn=durable_lsn,
        **texts,
    )


def encode_refusal(refusal: Refused) -> bytes:
    """The body of a REFUSED frame."""
    return bytes([refusal.reason]) + refusal.text.encode()[:1024]


def decode_refusal(body: Buffer) -> Refused:
    """What the other side says against us."""
    data = bytes(body)
    if not data or data[0] not in tuple(Reason):
        raise FrameError("unknown refusal")
    return Refused(Reason(data[0]), data[1:].decode(errors="replace"))


def is_foreign(first_bytes: bytes) -> bool:
    """Whether the first bytes of a connection are those of the NATS protocol."""
    return len(first_bytes) >= 4 and first_bytes[:4] in FOREIGN_STARTS


def check_hello(
    mine: Hello,
    theirs: Hello,
    *,
    authorize: Callable[[str, str], bool] | None,
    names: Mapping[str, str],
) -> None:
    """Refused, with the first reason that applies, unless ``theirs`` may be talked to.

    ``authorize(user, password)`` judges an inbound hello (None: nothing is asked for). ``names``: node name → node id
    of the peers that are connected now.
    """
    if authorize is not None and not authorize(theirs.user, theirs.password):
        raise Refused(Reason.AUTHORIZATION, "Authorization Violation")
    if theirs.node_id == mine.node_id:
        if theirs.boot_nonce == mine.boot_nonce:
            raise Refused(Reason.SELF, "this is the node itself")
        raise Refused(
            Reason.OLD_DISK,
            f'node id {theirs.node_id} is also that of "{mine.node_name}": one disk is a copy of the other '
            f"(boot {theirs.boot_counter} there, boot {mine.boot_counter} here)",
        )
    if theirs.cluster_name != mine.cluster_name:
        raise Refused(Reason.CLUSTER_NAME, f'cluster name "{theirs.cluster_name}" does not match "{mine.cluster_name}"')
    if theirs.cluster_id and mine.cluster_id and theirs.cluster_id != mine.cluster_id:
        raise Refused(
            Reason.CLUSTER_ID,
            f"cluster id {theirs.cluster_id} does not match {mine.cluster_id}: "
            f'two different clusters are named "{mine.cluster_name}"',
        )
    if theirs.node_name == mine.node_name or names.get(theirs.node_name, theirs.node_id) != theirs.node_id:
        raise Refused(Reason.DUPLICATE_NAME, f'Remote server has a duplicate name: "{theirs.node_name}"')
