"""The `{method}` directive: the generated facts on a method's card."""

from __future__ import annotations

import inspect
import json
from importlib.resources import files
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from equivox import methods

FLAGS = (
    "per_loss_gradients", "needs_validation", "needs_index", "resamples", "leaves_unused",
    "replaces_fusion",
)  # fmt: skip


def facts(key: str) -> list[tuple[str, str]]:
    """What is known of a method without running it."""
    method = methods.get(key)
    catalogue = json.loads((files("equivox") / "catalogue.json").read_text())
    paper: dict[str, Any] = next((entry for entry in catalogue if entry["key"] == key), {})
    signature = inspect.signature(method.__init__).parameters.values()
    arguments = [f"{p.name} = {p.default!r}" for p in signature if p.kind is p.KEYWORD_ONLY]
    rows = [
        ("Class", f"equivox.{method.__name__}"),
        ("Paper", f"{paper['title']} ({paper['venue']})" if paper else ""),
        ("Category", method.category),
        ("Fidelity", method.fidelity),
        ("Tasks", ", ".join(method.tasks)),
        ("Ingredients", ", ".join(sorted(method.ingredients))),
        ("Capabilities", ", ".join(flag for flag in FLAGS if getattr(method, flag))),
        ("Arguments", ", ".join(arguments)),
        ("Search space", ", ".join(f"{k}: {v}" for k, v in method.search_space.items())),
        *((f"Not: {check}", reason) for check, reason in method.exceptions.items()),
    ]
    return [(name, value) for name, value in rows if value]


class MethodFacts(SphinxDirective):
    """A list of the facts."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        fields = nodes.field_list()
        for name, value in facts(self.arguments[0]):
            field = nodes.field()
            field += nodes.field_name(text=name)
            field += nodes.field_body("", nodes.paragraph(text=value))
            fields += field
        return [fields]


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("method", MethodFacts)
    return {"parallel_read_safe": True}
