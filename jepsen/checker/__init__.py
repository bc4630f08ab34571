"""Checkers: pure functions from a history and final reads to a list of problems (one line each; empty = passed).

``stream.py`` has lost, unexpected, phantom, dup-seq, dup-msg, order, gap, contents and removed; ``consumer.py`` has wq,
floor and drained; ``linearizable.py`` has lin; ``raft.py`` has raft; ``replicas.py`` has lost-on-node, hash and stale;
``ghosts.py`` has ghost; ``live.py`` has live; ``limits.py`` has limit; ``copies.py`` has mirror; ``counter.py``,
``timed.py``, ``fast.py`` and ``admin.py`` have what they are called. Each problem begins with its checker's name, and
each tells ``tally.py`` how much it compared.
They know nothing of executors: both ``jepsen/sim`` and ``jepsen/real`` use them. May import only ``jepsen.history``.
"""
