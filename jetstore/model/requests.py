"""What the front end asks the engine for, beyond configurations: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MessageGet:
    """One MSG.GET or DIRECT.GET request; the front end has checked that the selectors do not conflict.

    Selectors: ``seq`` | ``last_by_subj`` | ``next_by_subj`` (at or after ``seq``/``start_time_ns``) | ``start_time_ns``
    | ``multi_last`` (direct only). 0, "" and () mean "not given".
    """

    seq: int = 0
    last_by_subj: str = ""
    next_by_subj: str = ""
    start_time_ns: int = 0
    batch: int = 0
    """Direct only: at most this many messages; 0 = a single one without end-of-batch mark."""
    max_bytes: int = 0
    """Direct only: stop after the message that reaches it; 0 = the server's max_pending."""
    multi_last: tuple[str, ...] = ()
    up_to_seq: int = 0
    up_to_time_ns: int = 0
    no_hdr: bool = False


@dataclass(frozen=True, slots=True)
class StreamInfoRequest:
    """What a STREAM.INFO asks for besides the plain info."""

    deleted_details: bool = False
    subjects_filter: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class PurgeRequest:
    """Purge below ``seq``, or all but the ``keep`` newest, of the messages matching ``filter`` ("" = all). Not both."""

    filter: str = ""
    seq: int = 0
    keep: int = 0
