"""Compressed answers: what ``Accept-Encoding`` of a request asks for."""

from __future__ import annotations

from typing import Final

ACCEPT_ENCODING: Final = b"Accept-Encoding"


def compressed(wanted: str, body: bytes) -> tuple[bytes, bytes]:
    """The name for ``Content-Encoding`` (b"" = nothing was asked for), and the body in it; snappy is framed."""
    wanted = wanted.lower()
    if not wanted:
        return b"", body
    if "snappy" in wanted or "s2" in wanted:
        import cramjam  # start-up time, as gzip below

        return b"snappy", bytes(cramjam.snappy.compress(body))
    if "gzip" in wanted:
        import gzip

        return b"gzip", gzip.compress(body)
    return b"identity", body
