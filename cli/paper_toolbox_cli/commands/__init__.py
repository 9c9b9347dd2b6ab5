"""One file per command: read, call the engine, show."""
