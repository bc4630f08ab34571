"""The exception tree. Six families, never mixed.

::

    JetstoreError
    ├── ApiError             a definite refusal: a JetStream error with code, err_code and description
    ├── NotNow               nothing was stored and never will be by this attempt; trying again later is sensible
    ├── ConfChangeRefused    members cannot change like that: nothing was proposed; the text names what does not fit
    ├── OutcomeUnknown       what was asked may or may not come about; whoever asked is told nothing definite
    ├── OperatingError       something about the machine: handled where policy lives
    │   ├── DiskFull         a capacity event (ENOSPC on a reservation): new publishes are refused, the rest goes on
    │   ├── ReadBackFailed   what was just written cannot be read: it does not count, what was before does
    │   ├── DiskPoisoned     a failed write or sync: final for the node, never retried
    │   └── StoreLocked      another process holds the store
    ├── ArchiveError         what is wrong with a stream's archive: nothing of it is taken
    ├── IndexDoubt           a derived index cannot prove its answer: its owner rebuilds it from the log
    └── Corruption           bytes that are not what was written: carries file, offset, expected, actual
        └── FormatUnknown    a version or kind this build does not know: refused, never guessed
"""

from __future__ import annotations


class JetstoreError(Exception):
    """Root of every error this code base raises on purpose."""


class ApiError(JetstoreError):
    """A definite refusal in NATS's own terms. Nothing was changed by the request that got it.

    ``code`` is HTTP-like, ``err_code`` is the NATS error code (``jetstore/model/api_errors.toml``).
    """

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} (code {code}, err_code {err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description


class NotNow(JetstoreError):
    """No leader, shutting down, or paused: definitely not stored; retry later."""


class LedElsewhere(NotNow):
    """The stream of this name is there, and another node leads it."""

    def __init__(self, name: str, version: int = 0) -> None:
        """``version``: of the configuration that was decided just now."""
        super().__init__(f"{name} is led by another node")
        self.version = version


class ConfChangeRefused(JetstoreError):
    """A change of a group's members that its configuration does not allow. Nothing was proposed."""


class OutcomeUnknown(JetstoreError):
    """A proposal was made and its outcome will not be known here: leadership was lost. Answer nothing definite."""


class OperatingError(JetstoreError):
    """The machine, not the data: disk full, disk failed, store locked."""


class DiskFull(OperatingError):
    """No space for a reservation or a temporary file. Nothing counted was lost; resumes by itself."""


class ReadBackFailed(OperatingError):
    """A checkpoint file was written and synced, and the disk does not give it back: what stood before still counts."""


class DiskPoisoned(OperatingError):
    """A write, sync, rename or truncate failed. The node must stop; nothing after this may be acknowledged."""


class StoreLocked(OperatingError):
    """Another live process holds this store directory."""


class ArchiveError(JetstoreError):
    """Bytes that a client sent to make a stream of are no archive, or not one that can be taken. Said to the client."""


class IndexDoubt(JetstoreError):
    """The subject index cannot prove an answer or a commit. Nothing is lost: it is rebuilt from the message log."""


class Corruption(JetstoreError):
    """Bytes on disk are not what was written. Never truncated away, never served."""

    def __init__(self, what: str, *, file: str, offset: int, expected: object = None, actual: object = None) -> None:
        detail = "" if expected is None and actual is None else f" (expected {expected!r}, found {actual!r})"
        super().__init__(f"{what} in {file} at byte {offset}{detail}")
        self.what = what
        self.file = file
        self.offset = offset
        self.expected = expected
        self.actual = actual


class FormatUnknown(Corruption):
    """A version or record kind that this build does not know."""
