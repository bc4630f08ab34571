"""Drives all groups of one server on one event loop: proposals, journal blocks, apply, links, deliveries.

Start at ``node.py`` (what lives when), then ``group.py`` (one group's driver) and ``group_commit.py`` (one journal
block for all of them). A stream is ``stream_group.py`` with ``ingest.py`` in front and ``delivery.py`` behind. With
other nodes around: ``cluster.py`` (founding), ``raft_host.py`` (ticks and messages), ``link/`` (connections),
``behind.py`` and ``catch_up/`` (a member that lacks what its leader no longer has), ``comparing.py`` (replicas check
each other).

Imports ``meta`` and everything below; knows no client connection and no API subject (``ports.py`` is the seam to the
front end). Specified in ``docs/ARCHITECTURE.md`` and ``docs/raft.md``.
"""
