"""The state machine of one stream: what is stored, what is refused, what is removed. Pure and deterministic.

Lives here: subjects and filters, the codec of everything in a stream group's log, ``Stream`` (apply, reads, checkpoint)
and its parts. May import ``jetstore.consumer``, ``jetstore.store.ports``, ``jetstore.model``, ``jetstore.hot`` and what
stands right of them; never a clock, a socket, a file or a dice: time comes in through entries.

Start at ``stream.py``, then ``apply_publish.py`` (the hot path) and ``entries.py`` (what can be in the log).
Specified by ``docs/format/entries.md`` and ``docs/format/stream-head.md``.
"""
