"""Simple baselines that a method should beat before it is said to help."""
