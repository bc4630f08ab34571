"""``DirectoryLock``: one live server per store directory.

The lock is ``flock`` on an open file description, so whoever inherits the descriptor holds it too: the server opens
LOCK and its writer process inherits it. The store is free only when both are gone; after a kill the writer may still
be inside a write, and a restarted server must wait for it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from jetstore.errors import StoreLocked

LOCK_NAME = "LOCK"


class DirectoryLock:
    """Holds ``<root>/LOCK`` from construction until ``close``. Raises ``StoreLocked`` if somebody else does."""

    def __init__(self, root: str | Path) -> None:
        self.path = f"{os.path.abspath(root)}/{LOCK_NAME}"
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self.fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self.fd)
            self.fd = -1
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                raise
            by = f" by process {holder}" if holder else ""
            raise StoreLocked(f"the store {os.path.dirname(self.path)} is in use{by}") from error
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, b"%d\n" % os.getpid(), 0)

    def close(self) -> None:
        """Give up this process's hold. The store stays locked while the writer process lives."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
