"""What every test shares: one thread, settled randomness, shapes checked, the real data sets."""

from __future__ import annotations

import builtins
import os
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch

torch.set_num_threads(1)

hypothesis.settings.register_profile("equivox", deadline=None, derandomize=True)
hypothesis.settings.load_profile("equivox")

# The library imports jaxtyping for type checkers only. Here its names resolve, so that the import
# hook checks the annotated shapes of the mathematics at every call.
for _name in ("Bool", "Float", "Int"):
    setattr(builtins, _name, getattr(jaxtyping, _name))
jaxtyping.install_import_hook(
    ["equivox.functional", "equivox.methods", "equivox.modules"], "beartype.beartype"
)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets, which are not part of the repository."""
    root = os.environ.get("EQUIVOX_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip(f"`EQUIVOX_DATA` should name the folder of the real data sets. Found `{root}`.")
    return Path(root)
