"""Consensus without I/O: a pure function of (state, input) that returns what to save, send and apply.

Start at ``core.py`` (what the driver calls) with ``docs/raft.md`` beside it; then ``election.py``, ``follower.py``,
``leader.py`` with ``replication.py`` and ``conf_change.py``. Values, each testable alone: ``log.py``, ``progress.py``,
``quorum.py``, ``membership.py``, ``message.py``, ``ready.py``, ``repair.py``, ``read_index.py``. This room imports
nothing that has a clock, a disk, a socket or dice: ticks, storage completions and randomness are passed in. Source: the
Raft paper (Ongaro, Ousterhout 2014), Ongaro's thesis, etcd's raft library, and protocol-aware recovery (FAST '18).
"""
