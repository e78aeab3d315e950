"""The benchmark: one experiment, its training, and what is kept of it on disk."""
