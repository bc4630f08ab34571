"""A replica gets from a peer what its own log can no longer give it: ranges of records, then one state to end with.

``source`` answers for any member that has the data (usually the leader); ``sink`` drives: it fetches the ranges this
member lacks into files that nothing refers to (``store/install_files.py``), then a logical head taken after the last of
them was read, and has ``install`` put both in place of the group's state. ``repair`` fetches ranges that turned out to
be damaged. ``messages`` has what they say to each other, ``exports`` how a group is read. Start at ``sink.py``.

Knows no link: a ``Peer`` is whatever carries bytes there and back. Specified in ``docs/format/catch-up.md``.
"""
