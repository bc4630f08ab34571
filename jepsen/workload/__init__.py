"""Workloads: what clients do in a run, and which checkers judge it. The letters are those of the fault matrix.

A · append.py · unique values appended and read     B · register.py · KV keys: put, get, compare-and-set, delete
C · queue.py · work queue with disjoint filters      D · idempotent.py · retries with message ids
E · batch.py · atomic batches                         G · acks.py · durable consumers of every ack policy
I · removal.py · deletes, purges and limits           K · limits.py · limits asked for at every moment
F · copies.py · mirrors and sources in one server
H · admin.py · streams and consumers made and deleted
J · counter.py · counters                             T · timed.py · messages by schedule
L · fast.py · fast batches

Start with ``base.py``: the setting every workload runs in, how a client's process lives, and how a stream is finally
read. Workloads speak to any NATS server through ``jepsen.sim.client`` on whatever event loop runs them.
"""
