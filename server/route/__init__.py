"""Subject interest and the way of messages: who subscribes to what, and who gets what.

Lives here: the sublist of an account (``sublist.py``), subscriptions (``subscription.py``), delivery of a run of
messages to one match (``delivery.py``), the account's router (``router.py``: start there), which is what the engine
sees as ``jetstore.node.ports.Outlet``; subjects that become others (``mappings.py``), or another account's
(``imports.py``); traces of messages (``tracing.py``); other nodes: their interest and the way there (``peers.py``,
``peer_frames.py``), who elsewhere gets what (``remote.py``).
May import: server.protocol, jetstore.node.ports and everything below. Never sockets or time: connections are seen
as ``Sink``, the loop as a ``call_soon`` function, chance as a seeded ``Random``.
"""
