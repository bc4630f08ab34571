"""Measurements of a running server, of this one and of nats-server beside it: what ``jetstore bench`` runs.

Each measurement (a *row*) starts a fresh server process on an empty store and loads it from other processes over real
sockets. Rows are functions in ``publishing.py``, ``reading.py``, ``lifetime.py`` and ``replicated.py`` (three nodes);
``measure.py`` is what they use, ``run.py`` repeats and alternates, ``report.py`` prints. May import ``jepsen.real``
(server processes and load) and nothing of the server itself: it must measure any server. Standard library only.
Results: docs/benchmarks.md.
"""
