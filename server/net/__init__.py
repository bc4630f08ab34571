"""Connections: listeners, the glue between sockets and the protocol machine, output, timers, the registry.

Lives here: one connection (``connection.py``: start there), all of them (``client_server.py``), what is configured
(``options.py``), what monitoring reads (``stats.py``), layers between a transport and a connection (``layer.py``,
``tls.py``, ``websocket.py``), what accounts share (``accounts.py``), the protocol trace (``trace.py``).
May import: server.route, server.auth, server.protocol, jetstore.*. Works on any asyncio event loop, a simulated one
included: transports, ``call_later``, ``call_soon`` and ``time`` of the loop are all it uses; wall time comes from a
``Clock``, chance from a seeded ``Random``.
"""
