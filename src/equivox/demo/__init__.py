"""`equivox demo`: what an imbalance costs and what cures it, on data that come along."""
