"""What goes together: case (a run as asked for), traits, fits, clashes, conflicts.

The table of pairs: pairs, covering (few runs that hold all pairs), rehearsal, tiny (the smallest of runs), page.
"""
