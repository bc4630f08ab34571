"""The metadata group: which streams exist, under which group uid, with which desired configuration.

A deterministic state machine fed by its own Raft group, uid 1. It knows no consumers: those live in their stream's
group. Start at ``state.py``; ``stream_key.py`` has one name for a stream of any account. May import
``model`` and below; imports no clock, disk, socket or dice.
"""
