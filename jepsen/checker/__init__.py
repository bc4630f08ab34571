"""Checkers: pure functions from a history and final reads to a list of problems (one line each; empty = passed).

``stream.py`` has lost, unexpected, phantom, dup-seq, dup-msg, order, gap, contents and removed; ``consumer.py`` has wq,
floor and drained; ``linearizable.py`` has lin; ``report.py`` runs them and names what they found.
They know nothing of executors: both ``jepsen/sim`` and ``jepsen/real`` use them. May import only ``jepsen.history``.
"""
