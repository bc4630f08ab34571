"""The ``$JS.API`` surface: subject → request → engine call → reply.

One table (``table.py``) says for every API subject which handler answers it, with which response type, and what an
error reply looks like; ``handler.py`` receives the requests, keeps them in order per stream, bounds them and sends
replies and audit advisories; ``streams.py``, ``consumers.py``, ``messages.py`` and ``direct.py`` hold the handlers.
The engine is only seen through ``ports.JetStreamNode``. Start reading at ``table.py``.
May import ``jetstore`` and nothing of ``server`` but itself. Specified by the JetStream wire API; deviations are in
``docs/compatibility.md``.
"""
