"""The command line of Paper Toolbox: one thin file per command; the engine does the work."""
