"""What PubAcks say: where a message was stored, or why not."""

from __future__ import annotations

from jetstore.errors import ApiError
from jetstore.model.json import encode


def place(stream: str, domain: str) -> bytes:
    """What stands between ``{"stream":"`` and ``","seq":``. Made once a stream: a domain costs nothing later."""
    shown = {"stream": stream, "domain": domain} if domain else {"stream": stream}
    return encode(shown).removeprefix(b'{"stream":"').removesuffix(b'"}')


def refused(stream: str, error: ApiError) -> bytes:
    """The PubAck of a refused publish. It names no domain."""
    shown = {"code": error.code, "err_code": error.err_code, "description": error.description}
    return encode({"error": shown, "stream": stream, "seq": 0})
