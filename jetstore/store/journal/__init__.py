"""The journal: one log per node for all its groups; one block, one write, one sync for everything that waits.

``format`` is a block's bytes, ``entries`` what an ENTRIES body holds, ``table`` the fold of all lines into what each
group stands at (the same for append and for recovery), ``files`` numbers, zeroes and recycles files, ``append`` writes
blocks, ``scan`` reads a file as found, ``verdicts`` tells torn from corrupt, ``recovery`` opens a journal,
``reread`` and ``find`` read one that is in use.
Start at ``append.Journal`` and ``recovery.open_journal``; specified in ``docs/format/journal.md``.
May import ``jetstore.store.{vfs,ports}`` and below.
"""
