"""Sphinx configuration."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

project = "equivox"
author = "The equivox contributors"
copyright = author
release = version = installed_version("equivox")

sys.path.insert(0, str(Path(__file__).parent))

extensions = ["methods_directive", "myst_parser", "sphinx.ext.doctest", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"] + [
    f"results/{name}.md" for name in ("table", "reference", "step_cost")
]

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

# Every example is run: `make docs` builds with `-b doctest` too.
doctest_global_setup = "import torch\n\ntorch.set_num_threads(1)\ntorch.manual_seed(0)"

html_theme = "furo"
html_title = "equivox"
