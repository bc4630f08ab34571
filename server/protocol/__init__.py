"""The NATS client protocol without I/O: bytes in, events out, bytes out.

Lives here: the state machine of one client connection (``client.py``: start there), what it reads
(``connect.py``, ``lines.py``), what it says (``info.py``, ``reasons.py``), its ``events.py`` and its ``keepalive.py``.
May import: jetstore.hot, jetstore.limits, jetstore.types, jetstore.errors. Never asyncio, sockets, time or chance:
time comes in as an argument, permissions and subscriptions are the caller's.
Source: the public NATS client protocol; ``tests/server/protocol`` holds its tables.
"""
