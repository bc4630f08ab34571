"""Streams as archives: what STREAM.SNAPSHOT sends, and what STREAM.RESTORE takes.

``s2.py`` and ``archive.py`` are the format, fed and read a piece at a time; ``consumer_json.py`` is a consumer's state
in it. ``snapshot.py`` sends a stream to whoever asked, as fast as it acknowledges; ``restore.py`` makes a stream of
what comes; ``backups.py`` owns both. Start reading at ``restore.py``. Specified by ``docs/format/archive.md``.
"""
