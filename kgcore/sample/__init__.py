"""Sample graphs: synthetic ones of any size, and the history of a git repository."""

from kgcore.sample.git_history import make_from_git
from kgcore.sample.synthetic import make_synthetic
from kgcore.sample.writer import SampleCounts

__all__ = ["SampleCounts", "make_from_git", "make_synthetic"]
