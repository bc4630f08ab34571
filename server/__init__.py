"""The NATS front end: uses jetstore; jetstore never uses it."""
