"""Who a client is and what it may do.

Lives here: users and the check of CONNECT's credentials (``authenticator.py``: start there), users
with claims that an operator's account signed (``operator.py``), their hours (``times.py``), what a user may publish
and subscribe to (``permissions.py``).
May import: server.protocol, server.config and everything below. No I/O.
"""
