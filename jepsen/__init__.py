"""Faults, workloads and checkers; two executors: jepsen/sim (virtual time, seeded) and jepsen/real (processes)."""
