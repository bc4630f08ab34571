"""Monitoring over HTTP (/varz /connz /jsz /healthz /metrics …, and a page with links) and by ``$SYS`` request.

``monitor.py`` routes and listens, ``http.py`` is the GET-only protocol (h11) on the server's own loop; one module per
endpoint builds its answer from the views in ``ports.py``, which the composition root's objects satisfy as they are.
``system.py`` answers requests of the system account with the same. May import ``jetstore`` only. Field
names, types and texts follow nats-server, since exporters and nats-top read them.
"""
