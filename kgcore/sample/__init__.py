"""Sample graphs: synthetic ones of any size, and the history of a git repository."""
