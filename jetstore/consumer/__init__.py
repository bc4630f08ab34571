"""The state machine of one consumer: what was delivered, acknowledged, is due again. Pure and deterministic.

Lives here: ``ConsumerState`` and its parts (``cursor``: where new messages start; ``pending``: runs of what is
delivered and not acknowledged), and the codec of consumer entries. A consumer lives in its stream's Raft group: the
stream calls ``apply_entry`` for consumer entries, and tells every consumer what was stored and removed.
The consumer sees the stream only as ``ports.StreamView``.

May import ``jetstore.store.ports``, ``jetstore.model`` and what stands right of them; never a clock, a socket, a dice.
Start at ``state.py``, then ``apply.py``. Specified by ``docs/format/consumer-entries.md``.
"""
