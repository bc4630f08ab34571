"""Links between nodes: two TCP connections per pair, *raft* (never paused) and *bulk* (paused by credit).

Start at ``links.py`` (what the node driver uses), then ``link.py`` (one connection). The bytes: ``frames.py``
(framing), ``hello.py`` (who is there, and refusals), ``raft_codec.py`` (Raft messages of many groups),
``bulk_frames.py``. Pure: those four and ``peer_memory.py`` (old or cloned disks). ``bulk.py``: requests and streams.
``memory_links.py`` is the twin for tests of whoever uses ``Links``.

May import jetstore.raft, jetstore.limits, jetstore.types, jetstore.errors. Works on any asyncio event loop, a simulated
one included: ``create_server``, ``create_connection``, transports, ``call_later``, ``call_soon`` and ``time`` of the
loop are all it uses; chance comes from a seeded ``Random``. Specified in ``docs/format/link.md``.
"""
