"""The engine: replicated, durable streams. Knows no NATS connections and no API subjects.

Start at ``docs/ARCHITECTURE.md``. Rooms, from the top down: ``node`` drives all groups of one server, ``meta`` and
``stream`` (which owns its ``consumer``\\ s) are deterministic state machines, ``raft`` is consensus without I/O,
``store`` is the only room that knows bytes on disk, ``model`` is what users see, ``hot`` holds byte kernels.
"""

__version__ = "0.1.0"
