"""Nemeses: what goes wrong in a run, and when. One vocabulary (``faults.py``), schedules drawn from a seed
(``schedule.py``), damage to stored bytes (``damage.py``). An executor gives a ``Target`` that knows how to do it.

Letters as in the fault matrix: K1 kill · W1–W3 power cut · P1 pause · E1–E5 disk errors, full and slow disk ·
N6 connections · C1 C2 clocks · D1–D5 damage. May import ``jepsen.history`` and the standard library.
"""
