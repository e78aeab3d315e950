"""Joint training: the plain baseline, without balancing."""

from __future__ import annotations

from equivox.method import Method


class Joint(Method):
    """Train everything with the task's loss of the fused logits, and nothing else.

    >>> Joint()
    Joint()
    """

    category = "yardstick"
