"""Consensus without I/O: a pure function of (state, input) that returns what to save, send and apply.

Start at ``core.py``; ``log.py`` is what a group remembers of its entries. This room imports nothing that has a clock, a
disk, a socket or dice: ticks, storage completions and randomness are passed in. Source: the Raft paper (Ongaro,
Ousterhout 2014), sections 5.1–5.4, and the Ready loop of etcd's raft library.

This version runs groups of one voter. A configuration with more is refused; the Ready seam is the final one.
"""
