"""The NATS front end: uses jetstore; jetstore never uses it.

Start at ``app.py``, which builds the object graph of one server, and ``run.py``, the real world around it. The rooms,
from the wire inwards: ``net``, ``protocol``, ``auth``, ``route``, ``jsapi``; beside them ``config``, ``monitor``,
``cli`` and ``bench``.
"""
