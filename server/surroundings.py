"""What a running server needs of the process around it, as a plain value: made before the server itself is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.config.options import Options


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around a server in its process."""

    load: Callable[[], Options]
    """The options of the command line and its file, read again. Raises ``ConfigError``."""
    apply_log: Callable[[Options], None]
    """Log as these options say. Raises ``OSError`` and changes nothing if the file cannot be opened."""
    reopen_log: Callable[[], None]
    """Close the log file and open what is at its path now."""
    write_pid: Callable[[str], None]
    """Write the process's id to a file. Raises ``OSError``."""
