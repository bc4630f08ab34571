"""Models of what users see: stream and consumer configuration, infos, API errors, and the checks on them.

Pure values and pure functions, and one thing that is kept (``catalogue.py``: an account's streams, as new ones are
judged beside them): no clock, no disk, no sockets. May import only ``jetstore.{limits|types|errors}``
and pydantic (untrusted JSON enters here). Start with ``stream.py`` and ``consumer.py`` (the configurations), then
``stream_checks.py`` and ``consumer_checks.py`` (defaults and refusals), ``infos.py`` (answers) and ``json.py`` (how
they look as text). Field names are those of the JetStream API; every duration is an integer of nanoseconds and every
time an integer of nanoseconds since 1970 with 0 for "not set". ``docs/compatibility.md`` lists the deviations.
"""
