"""Room sign to be written."""
