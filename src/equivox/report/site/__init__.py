"""The site of a comparison: a leaderboard, a page a method, a page a data set.

Files that need no network and no server; every number leads to its runs, and these to the commands
that repeat them. `equivox report` writes it.
"""
